package main

import "time"

// bound is the promise: an answer produced later than this after a commit knows of it.
const bound = time.Second

// late reports whether a question was sent so long after a commit that its answer has to know of it.
func late(committed, sent int64) bool { return committed != 0 && sent > committed+int64(bound) }

// begun reports whether a command was given before its effect was seen.
func begun(at, received int64) bool { return at != 0 && at <= received }

// judge says what is wrong with a status server's answer, if anything is. A commit in doubt makes both right: until its command is
// answered nothing is demanded, and once it is given nothing new is wrong.
func (s *subject) judge(said string, sent, received int64) string {
	switch {
	case s.issued == 0 && said != sayUnknown:
		return "it was never issued"
	case s.issued == 0:
		return ""
	case said == sayUnknown && late(s.issued, sent):
		return "it was issued"
	case said == sayGood && (late(s.revoked, sent) || late(s.suspended, sent)):
		return "it was not good any more"
	case said == saySuspended && late(s.revoked, sent):
		return "it was revoked"
	case said == saySuspended && !begun(s.suspending, received):
		return "nobody had suspended it"
	case said == sayRevoked && !begun(s.revoking, received):
		return "nobody had revoked it"
	}
	return ""
}

// judgeVerdict says what is wrong with a verifier's verdict on a signature of the holder's.
func (s *subject) judgeVerdict(v verdict, sent, received int64) string {
	switch {
	case v.Indication == passed && (late(s.revoked, sent) || late(s.suspended, sent)):
		return "the certificate was not good any more"
	case v.Revocation.State == sayRevoked && !begun(s.revoking, received):
		return "nobody had revoked the certificate"
	case v.Revocation.State == saySuspended && !begun(s.suspending, received):
		return "nobody had suspended the certificate"
	case v.Indication == "TOTAL-FAILED":
		return "nothing was wrong with the signature"
	}
	return ""
}

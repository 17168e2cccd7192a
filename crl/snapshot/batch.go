package snapshot

import "time"

// together is how many look-ups wait for memory at the same time: as many as keep a processor's loads busy and as have room, with
// all that they touch, in its first cache.
const together = 64

// AppendAnswers appends to answers what Lookup says of each question, all as of the time of the call, and returns the extended slice.
// It is for many: some dozen questions at a time go side by side from step to step, and before each step all of them read what it
// needs, so that they wait for memory together and not one after the other.
func (s *Snapshot) AppendAnswers(answers []Answer, questions []Question) []Answer {
	now := s.config.Now()
	var b batch
	for len(questions) > 0 {
		group := questions[:min(together, len(questions))]
		questions = questions[len(group):]
		b.find(s, group, now)
		answers = append(answers, b.answers[:len(group)]...)
	}
	return answers
}

// A batch is a group of questions on their way.
type batch struct {
	answers [together]Answer
	keys    [together]key
	blocks  [together]block
	starts  [together]int   // of the next rows
	left    [together]uint8 // which have no answer yet, and how many
	n       int
}

// find fills in the answers to a group.
func (b *batch) find(s *Snapshot, group []Question, now time.Time) {
	// 1. Keys of those that are covered; what a delta says.
	b.n = 0
	for i := range group {
		q := &group[i]
		if b.answers[i] = (Answer{}); !s.covers(q, now) {
			continue
		}
		b.keys[i] = s.hasher.key(q.Serial)
		if state, changed := s.changed(b.keys[i]); changed {
			b.answers[i] = Answer{words[state], true}
			continue
		}
		b.left[b.n] = uint8(i)
		b.n++
	}
	// 2. Their blocks, and where in them the columns are read that decide about nearly all.
	b.each(func(i uint8) bool {
		ok := b.blocks[i].read(s, b.keys[i])
		b.starts[i] = b.blocks[i].outer.startOfFirst(b.keys[i], notGood)
		return ok
	})
	b.each(func(i uint8) bool {
		touch(b.blocks[i].outer.approximate, b.starts[i], b.blocks[i].outer.size[0])
		return true
	})
	// 3. Who does not pass is good; the others read the exact filter.
	b.each(func(i uint8) bool {
		outer := &b.blocks[i].outer
		if !outer.passes(b.keys[i], notGood) {
			b.answers[i] = Answer{words[good], true}
			return false
		}
		b.starts[i] = outer.startOfSecond(b.keys[i], notGood)
		return true
	})
	b.each(func(i uint8) bool {
		touch(b.blocks[i].outer.exact, b.starts[i], b.blocks[i].outer.size[1])
		return true
	})
	// 4. Who is a member is suspended or revoked.
	b.each(func(i uint8) bool {
		if !b.blocks[i].outer.decides(b.keys[i], notGood) {
			b.answers[i] = Answer{words[good], true}
			return false
		}
		b.starts[i] = b.blocks[i].inner.startOfFirst(b.keys[i], suspends)
		return true
	})
	b.each(func(i uint8) bool {
		touch(b.blocks[i].inner.approximate, b.starts[i], b.blocks[i].inner.size[0])
		return true
	})
	b.each(func(i uint8) bool {
		b.answers[i] = Answer{words[revoked], true}
		if b.blocks[i].inner.contains(b.keys[i], suspends) {
			b.answers[i].State = words[suspended]
		}
		return false
	})
}

// each takes a step with all that have no answer yet; the step says which go on.
func (b *batch) each(step func(i uint8) bool) {
	n := 0
	for _, i := range b.left[:b.n] {
		if step(i) {
			b.left[n] = i
			n++
		}
	}
	b.n = n
}

// touch reads from a row's octets in each column, of size octets, which brings them into the cache. It is not inlined, for a
// compiler that sees that nobody uses the result reads nothing.
//
//go:noinline
func touch(columns []byte, start, size int) (read byte) { //nolint:unparam // see above
	for ; start < len(columns); start += size {
		read ^= columns[start] ^ columns[min(start+rowOctets, len(columns))-1]
	}
	return read
}

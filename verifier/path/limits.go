package path

import "errors"

// Limits bound what one call may cost, whatever it is given. A zero field means the default that stands beside it.
type Limits struct {
	Depth       int // 16: certificates in a path, the anchor not counted
	Candidates  int // 512: certificates tried as somebody's issuer
	Signatures  int // 128: signatures checked, those of lists and answers included
	Comparisons int // 262,144: names held against constraints
	Lists       int // 64: lists, and as many answers, considered for one certificate
	Nesting     int // 4: paths of signers of lists and answers within paths of such
	Fetches     int // 16: calls of Config.Fetch
}

var defaultLimits = Limits{Depth: 16, Candidates: 512, Signatures: 128, Comparisons: 1 << 18, Lists: 64, Nesting: 4, Fetches: 16}

// resolve fills in the defaults.
func (l Limits) resolve() (Limits, error) {
	for _, f := range []struct{ field, standard *int }{
		{&l.Depth, &defaultLimits.Depth},
		{&l.Candidates, &defaultLimits.Candidates},
		{&l.Signatures, &defaultLimits.Signatures},
		{&l.Comparisons, &defaultLimits.Comparisons},
		{&l.Lists, &defaultLimits.Lists},
		{&l.Nesting, &defaultLimits.Nesting},
		{&l.Fetches, &defaultLimits.Fetches},
	} {
		switch {
		case *f.field < 0:
			return l, errors.New("a limit is negative")
		case *f.field == 0:
			*f.field = *f.standard
		}
	}
	return l, nil
}

// Work is what a call has cost.
type Work struct {
	Candidates, Signatures, Comparisons, Fetches int
	Remembered                                   int // signatures that were not checked because the cache knew them
}

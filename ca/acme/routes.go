package acme

import (
	"net/http"
	"slices"

	acmeapi "github.com/smallstep/certificates/acme/api"
)

// Routes lists what is served, as "METHOD /path/{parameter}", in order: stations' routes, which are also below /1.0, and
// phones' below each directory.
func Routes() []string {
	var out []string
	for path, ep := range endpoints {
		if path == "/root/" {
			path += "{sha256}"
		}
		out = append(out, ep.method+" "+path)
	}
	acmeapi.Route(listed{&out})
	slices.Sort(out)
	return out
}

// listed notes the routes of smallstep's ACME.
type listed struct{ out *[]string }

// MethodFunc notes a route.
func (l listed) MethodFunc(method, pattern string, _ http.HandlerFunc) {
	*l.out = append(*l.out, method+" "+acmePath+pattern)
}

package api

import "strings"

// Routes lists every route as "METHOD path".
func Routes() []string {
	out := []string{"GET " + documentPath, "GET " + docsPath}
	for _, r := range routes {
		out = append(out, r.method+" "+strings.Replace(r.path, ":id", "{id}", 1))
	}
	return out
}

package api

// Routes lists every route as "METHOD path".
func Routes() []string {
	out := []string{"GET " + documentPath}
	for _, r := range routes {
		out = append(out, r.method+" "+r.path)
	}
	return out
}

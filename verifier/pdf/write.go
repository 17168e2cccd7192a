package pdf

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
)

// write appends an object as PDF has it. Dictionaries are written in the order of their keys.
func write(out *bytes.Buffer, v any) {
	switch v := v.(type) {
	case nil:
		out.WriteString("null")
	case bool:
		out.WriteString(strconv.FormatBool(v))
	case int64:
		out.WriteString(strconv.FormatInt(v, 10))
	case number:
		out.WriteString(string(v))
	case name:
		writeName(out, v)
	case text:
		fmt.Fprintf(out, "<%x>", v.octets)
	case ref:
		fmt.Fprintf(out, "%d %d R", v.num, v.gen)
	case array:
		out.WriteByte('[')
		for i, item := range v {
			if i > 0 {
				out.WriteByte(' ')
			}
			write(out, item)
		}
		out.WriteByte(']')
	case dict:
		out.WriteString("<<")
		for _, key := range slices.Sorted(maps.Keys(v)) {
			writeName(out, key)
			out.WriteByte(' ')
			write(out, v[key])
		}
		out.WriteString(">>")
	}
}

func writeName(out *bytes.Buffer, n name) {
	out.WriteByte('/')
	for i := range len(n) {
		if b := n[i]; b <= ' ' || b >= 0x7f || b == '#' || isDelimiter(b) {
			fmt.Fprintf(out, "#%02x", b)
		} else {
			out.WriteByte(b)
		}
	}
}

// writable reports whether an object can be written again without loss.
func writable(v any) bool {
	switch v := v.(type) {
	case ambiguous, keyword, *stream:
		return false
	case array:
		return !slices.ContainsFunc(v, func(item any) bool { return !writable(item) })
	case dict:
		for _, item := range v {
			if !writable(item) {
				return false
			}
		}
	}
	return true
}

package store

import (
	"slices"
	"strconv"
	"strings"
)

// rowSizes are how many rows one statement writes. Few sizes mean few statement texts, which the drivers keep prepared.
var rowSizes = []int{64, 32, 16, 8, 4, 2, 1}

// insertRows writes rows of one width by statements of several rows: head VALUES (…), (…) tail.
func (tx *Tx) insertRows(head, tail string, rows [][]any) (written int64, err error) {
	for _, size := range rowSizes {
		for len(rows) >= size {
			query, args := valueList(head, tail, rows[:size], func(row []any) []any { return row })
			n, err := tx.exec(query, args...)
			if err != nil {
				return written, err
			}
			written, rows = written+n, rows[size:]
		}
	}
	return written, nil
}

// listSize bounds how many keys one query looks for.
const listSize = 256

// queryIn reads every row whose key is one of keys: the query is head ($1, $2, …) tail. The list is filled up to a power
// of two by repeating a key, again for the sake of few statement texts.
func queryIn[T any](tx *Tx, scan func(scanner) (T, error), head, tail string, keys []any) ([]T, error) {
	var out []T
	for chunk := range slices.Chunk(keys, listSize) {
		list, args := placeholders(chunk, 1)
		rows, err := queryAll(tx.ctx, tx.q, scan, head+list+tail, args...)
		if err != nil {
			return nil, err
		}
		out = append(out, rows...)
	}
	return out, nil
}

// placeholders returns ($first, …) for keys, filled up, and the arguments that go with it.
func placeholders(keys []any, first int) (list string, args []any) {
	size := 1
	for size < len(keys) {
		size *= 2
	}
	var b strings.Builder
	for i := range size {
		b.WriteString([]string{"($", ", $"}[min(i, 1)])
		b.WriteString(strconv.Itoa(first + i))
		args = append(args, keys[min(i, len(keys)-1)])
	}
	b.WriteByte(')')
	return b.String(), args
}

func anys[T any](list []T) []any {
	out := make([]any, len(list))
	for i, v := range list {
		out[i] = v
	}
	return out
}

// valueList returns the query head VALUES (…), (…) tail for rows, filled up like the list of [queryIn], and its arguments.
func valueList[T any](head, tail string, rows []T, columns func(T) []any) (query string, args []any) {
	size := 1
	for size < len(rows) {
		size *= 2
	}
	var b strings.Builder
	b.WriteString(head)
	for i := range size {
		row := columns(rows[min(i, len(rows)-1)])
		b.WriteString([]string{" VALUES (", ", ("}[min(i, 1)])
		for j, v := range row {
			if j > 0 {
				b.WriteByte(',')
			}
			args = append(args, v)
			b.WriteString("$" + strconv.Itoa(len(args)))
		}
		b.WriteByte(')')
	}
	return b.String() + tail, args
}

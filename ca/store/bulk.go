package store

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// rowSizes are how many rows one statement writes. Few sizes mean few statement texts, which the drivers keep prepared.
var rowSizes = []int{64, 32, 16, 8, 4, 2, 1}

// insert writes rows of one width by statements of several rows: head VALUES (…), (…) tail. then says what comes of it.
func insert(head, tail string, rows [][]any, then func(written int64, err error) error) task {
	t := task{then: then}
	for _, size := range rowSizes {
		for len(rows) >= size {
			query, args := valueList(head, tail, rows[:size], func(row []any) []any { return row })
			t.statements, rows = append(t.statements, statement{query, args}), rows[size:]
		}
	}
	return t
}

// as names what failed.
func as(doing string) func(int64, error) error {
	return func(_ int64, err error) error {
		if err != nil {
			return fmt.Errorf("%s: %w", doing, err)
		}
		return nil
	}
}

// listSize bounds how many keys one query looks for.
const listSize = 256

// queryIn reads every row whose key is one of keys: the query is head ($1, $2, …) tail. The list is filled up to a power
// of two by repeating a key, again for the sake of few statement texts.
func queryIn[T any](tx *Tx, scan func(scanner) (T, error), head, tail string, keys []any) ([]T, error) {
	var out []T
	err := tx.perform(find(&out, scan, head, tail, keys))
	return out, err
}

// find is queryIn as a task.
func find[T any](out *[]T, scan func(scanner) (T, error), head, tail string, keys []any) task {
	t := task{read: func(found rows) error { return appendAll(out, scan, found) }}
	for chunk := range slices.Chunk(keys, listSize) {
		list, args := placeholders(chunk, 1)
		t.statements = append(t.statements, statement{head + list + tail, args})
	}
	return t
}

func appendAll[T any](out *[]T, scan func(scanner) (T, error), found rows) error {
	for found.Next() {
		v, err := scan(found)
		if err != nil {
			return err
		}
		*out = append(*out, v)
	}
	return nil
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

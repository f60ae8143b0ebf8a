// Package difference tells two app definitions apart, field by field.
package difference

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Change is one field that differs. From is absent where there was none before, To where there is none any more.
type Change struct {
	Path string          `json:"path"` // as in error answers: /container/volumes(0)/external/size
	From json.RawMessage `json:"from,omitempty"`
	To   json.RawMessage `json:"to,omitempty"`
}

// Of compares two JSON objects; nil stands for none. skip are members of the outermost object that do not count.
func Of(from, to json.RawMessage, skip ...string) []Change {
	a, b := members(from), members(to)
	for _, name := range skip {
		delete(a, name)
		delete(b, name)
	}
	var out []Change
	objects(&out, "", a, b)
	return out
}

func objects(out *[]Change, at string, a, b map[string]json.RawMessage) {
	var names []string
	for name := range a {
		names = append(names, name)
	}
	for name := range b {
		if _, both := a[name]; !both {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		values(out, at+"/"+strings.NewReplacer("~", "~0", "/", "~1").Replace(name), a[name], b[name])
	}
}

func values(out *[]Change, at string, a, b json.RawMessage) {
	if same(a, b) {
		return
	}
	if x, y := members(a), members(b); x != nil && y != nil {
		objects(out, at, x, y)
		return
	}
	x, y := elements(a), elements(b)
	if x == nil || y == nil {
		*out = append(*out, Change{at, compact(a), compact(b)})
		return
	}
	for n := range max(len(x), len(y)) {
		var v, w json.RawMessage
		if n < len(x) {
			v = x[n]
		}
		if n < len(y) {
			w = y[n]
		}
		values(out, fmt.Sprintf("%s(%d)", at, n), v, w)
	}
}

func members(v json.RawMessage) (m map[string]json.RawMessage) {
	if !begins(v, '{') || json.Unmarshal(v, &m) != nil {
		return nil
	}
	return m
}

func elements(v json.RawMessage) (list []json.RawMessage) {
	if !begins(v, '[') || json.Unmarshal(v, &list) != nil {
		return nil
	}
	return list
}

func begins(v json.RawMessage, c byte) bool {
	v = bytes.TrimSpace(v)
	return len(v) > 0 && v[0] == c
}

// same compares what the text means: 1.0 is 1, and the order of members does not count.
func same(a, b json.RawMessage) bool {
	if len(a) == 0 || len(b) == 0 {
		return len(a) == len(b)
	}
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return bytes.Equal(a, b)
	}
	p, err1 := json.Marshal(x)
	q, err2 := json.Marshal(y)
	return err1 == nil && err2 == nil && bytes.Equal(p, q)
}

func compact(v json.RawMessage) json.RawMessage {
	var b bytes.Buffer
	if len(v) == 0 || json.Compact(&b, v) != nil {
		return v
	}
	return b.Bytes()
}

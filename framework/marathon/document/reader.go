package document

import (
	"fmt"
	"math"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Reader gives typed access to an object, or to nothing: every method of a Reader without a value answers "absent".
// JSON null is absent. What is of the wrong type or out of bounds is noted in the Run and answers "absent" too.
type Reader struct {
	v     *Value
	path  string
	run   *Run
	known map[string]bool
	names []string
}

// Run is the reading of one document: what was found wrong, and what nobody asked for.
type Run struct {
	Problems Problems
	Warnings []string
}

// Read starts at the root, which must be an object.
func (run *Run) Read(v *Value) *Reader {
	if v.Kind != Object {
		run.Problems.Add("/", "error.expected.jsobject")
		return run.reader(nil, "")
	}
	return run.reader(v, "")
}

func (run *Run) reader(v *Value, path string) *Reader {
	return &Reader{v: v, path: path, run: run, known: map[string]bool{}}
}

// Path of a field of this object.
func (r *Reader) Path(name string) string { return r.path + "/" + name }

// Problem notes an error at a field.
func (r *Reader) Problem(name, text string) { r.run.Problems.Add(r.Path(name), text) }

// Value gives a field as it is; nil when it is absent or null.
func (r *Reader) Value(name string) *Value {
	if !r.known[name] {
		r.known[name] = true
		r.names = append(r.names, name)
	}
	if r.v == nil {
		return nil
	}
	if v := r.v.Fields[name]; v != nil && v.Kind != Null {
		return v
	}
	return nil
}

// Has tells whether a field is there and not null.
func (r *Reader) Has(name string) bool { return r.Value(name) != nil }

// Require notes the fields that are absent, in Marathon's words.
func (r *Reader) Require(names ...string) {
	if r.v == nil {
		return
	}
	for _, name := range names {
		if r.Value(name) == nil {
			r.Problem(name, r.Undefined(name))
		}
	}
}

// Undefined is Marathon's text for a missing required field.
func (r *Reader) Undefined(name string) string {
	return fmt.Sprintf("'%s' is undefined on object: %s", name, abridge(r.v.Compact()))
}

// abridge keeps an error text readable when somebody sends megabytes.
func abridge(s string) string {
	const limit = 1000
	if len(s) <= limit {
		return s
	}
	cut := limit
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}

// Str gives a string.
func (r *Reader) Str(name string) *string {
	v := r.Value(name)
	if v == nil {
		return nil
	}
	if v.Kind != String {
		r.Problem(name, "error.expected.jsstring")
		return nil
	}
	s := v.Text
	return &s
}

// StrLen gives a string whose length in characters is bounded; most < 0 means no upper bound.
func (r *Reader) StrLen(name string, least, most int) *string {
	s := r.Str(name)
	if s == nil {
		return nil
	}
	switch n := utf8.RuneCountInString(*s); {
	case n < least:
		r.Problem(name, "error.minLength")
		return nil
	case most >= 0 && n > most:
		r.Problem(name, "error.maxLength")
		return nil
	}
	return s
}

// StrLike gives a string that matches a pattern.
func (r *Reader) StrLike(name string, pattern *regexp.Regexp) *string {
	s := r.Str(name)
	if s != nil && !pattern.MatchString(*s) {
		r.Problem(name, "error.pattern")
		return nil
	}
	return s
}

// Enum gives one of a set of words, matched without regard to case and answered as listed.
func (r *Reader) Enum(name string, words ...string) *string {
	s := r.Str(name)
	if s == nil {
		return nil
	}
	for _, w := range words {
		if strings.EqualFold(w, *s) {
			return &w
		}
	}
	r.Problem(name, "error.unknown.enum.literal")
	return nil
}

// Flag gives a boolean.
func (r *Reader) Flag(name string) *bool {
	v := r.Value(name)
	if v == nil {
		return nil
	}
	if v.Kind != Bool {
		r.Problem(name, "error.expected.jsboolean")
		return nil
	}
	b := v.Bool
	return &b
}

// Num gives a finite number that is at least least.
func (r *Reader) Num(name string, least float64) *float64 {
	v := r.Value(name)
	if v == nil {
		return nil
	}
	f, ok := v.float()
	switch {
	case !ok:
		r.Problem(name, "error.expected.jsnumber")
		return nil
	case f < least:
		r.Problem(name, "error.min")
		return nil
	}
	return &f
}

// Int gives a whole number within bounds; 2.0 is one.
func (r *Reader) Int(name string, least, most int64) *int {
	v := r.Value(name)
	if v == nil {
		return nil
	}
	n, text := v.Whole(least, most)
	if text != "" {
		r.Problem(name, text)
		return nil
	}
	i := int(n)
	return &i
}

// Whole reads a number without fraction; text says what is wrong with it.
func (v *Value) Whole(least, most int64) (n int64, text string) {
	wrong := "error.expected.int"
	if most > math.MaxInt32 {
		wrong = "error.expected.long"
	}
	if v.Kind != Number {
		return 0, "error.expected.jsnumber"
	}
	f, ok := v.float()
	if !ok || f != math.Trunc(f) || math.Abs(f) > 1<<53 {
		return 0, wrong
	}
	n = int64(f)
	switch {
	case n < least:
		return 0, "error.min"
	case n > most && n > math.MaxInt32 && most <= math.MaxInt32:
		return 0, wrong
	case n > most:
		return 0, "error.max"
	}
	return n, ""
}

func (v *Value) float() (float64, bool) {
	if v.Kind != Number {
		return 0, false
	}
	f, err := strconv.ParseFloat(v.Text, 64)
	return f, err == nil
}

// Obj gives an object to read, which is empty when the field is absent: ask Has first where that matters.
func (r *Reader) Obj(name string) *Reader {
	v := r.Value(name)
	if v != nil && v.Kind != Object {
		r.Problem(name, "error.expected.jsobject")
		v = nil
	}
	return r.run.reader(v, r.Path(name))
}

// Present tells whether there is an object to read.
func (r *Reader) Present() bool { return r.v != nil }

// Each calls f with every member of an array, which must be objects. given says that the field is there.
func (r *Reader) Each(name string, f func(*Reader)) (given bool) {
	return r.Items(name, func(path string, v *Value) {
		if v.Kind != Object {
			r.run.Problems.Add(path, "error.expected.jsobject")
			return
		}
		item := r.run.reader(v, path)
		f(item)
		item.Close()
	})
}

// Items calls f with every member of an array.
func (r *Reader) Items(name string, f func(path string, v *Value)) (given bool) {
	v := r.Value(name)
	if v == nil {
		return false
	}
	if v.Kind != Array {
		r.Problem(name, "error.expected.jsarray")
		return false
	}
	for i, item := range v.List {
		f(fmt.Sprintf("%s(%d)", r.Path(name), i), item)
	}
	return true
}

// Strs gives an array of strings; nil when absent, empty but not nil when it is [].
func (r *Reader) Strs(name string) []string {
	out := []string{}
	given := r.Items(name, func(path string, v *Value) {
		if v.Kind != String {
			r.run.Problems.Add(path, "error.expected.jsstring")
			return
		}
		out = append(out, v.Text)
	})
	if !given {
		return nil
	}
	return out
}

// Ints gives an array of whole numbers within bounds.
func (r *Reader) Ints(name string, least, most int64) []int {
	out := []int{}
	given := r.Items(name, func(path string, v *Value) {
		n, text := v.Whole(least, most)
		if text != "" {
			r.run.Problems.Add(path, text)
			return
		}
		out = append(out, int(n))
	})
	if !given {
		return nil
	}
	return out
}

// Members calls f with every field of an object whose names are data (env, labels), in the order written.
func (r *Reader) Members(name string, f func(key, path string, v *Value)) (given bool) {
	v := r.Value(name)
	if v == nil {
		return false
	}
	if v.Kind != Object {
		r.Problem(name, "error.expected.jsobject")
		return false
	}
	for _, k := range v.Keys {
		if v.Fields[k].Kind != Null {
			f(k, r.Path(name)+"/"+k, v.Fields[k])
		}
	}
	return true
}

// StrMap gives an object of strings; nil when absent.
func (r *Reader) StrMap(name string) map[string]string {
	out := map[string]string{}
	given := r.Members(name, func(key, path string, v *Value) {
		if v.Kind != String {
			r.run.Problems.Add(path, "error.expected.jsstring")
			return
		}
		out[key] = v.Text
	})
	if !given {
		return nil
	}
	return out
}

// Nested reads a value that is known to be an object.
func (r *Reader) Nested(path string, v *Value) *Reader { return r.run.reader(v, path) }

// Note adds a problem at any path.
func (r *Reader) Note(path, text string) { r.run.Problems.Add(path, text) }

// Warn adds a warning.
func (r *Reader) Warn(format string, args ...any) {
	r.run.Warnings = append(r.run.Warnings, fmt.Sprintf(format, args...))
}

// maxWarnings bounds what a document of nonsense makes us say.
const maxWarnings = 20

// Close notes the fields that nobody asked for.
func (r *Reader) Close() {
	if r.v == nil {
		return
	}
	for _, k := range r.v.Keys {
		if r.known[k] {
			continue
		}
		if len(r.run.Warnings) >= maxWarnings {
			return
		}
		text := fmt.Sprintf("unknown field %s is ignored", abridge(r.Path(k)))
		if best := nearest(k, r.names); best != "" {
			text += fmt.Sprintf("; did you mean %q?", best)
		}
		r.run.Warnings = append(r.run.Warnings, text)
	}
}

// nearest gives the known name that is most like a wrong one, or "".
func nearest(wrong string, names []string) string {
	if len(wrong) > 64 {
		return ""
	}
	sorted := append([]string(nil), names...)
	sort.Strings(sorted)
	best, least := "", 1+max(1, len(wrong)/3)
	for _, n := range sorted {
		if d := distance(strings.ToLower(wrong), strings.ToLower(n)); d < least {
			best, least = n, d
		}
	}
	return best
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			diagonal, row[j] = row[j], min(row[j]+1, row[j-1]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}

// Errors counts the paths noted so far in the whole run.
func (r *Reader) Errors() int { return len(r.run.Problems.list) }

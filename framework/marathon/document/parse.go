// Package document reads JSON that comes from anybody: it parses a text into a tree that keeps what was really written
// (key order, numbers as text), refuses what would be ambiguous later (duplicate keys, NUL, invalid UTF-8, absurd
// depth), and gives typed access that collects errors in Marathon's words, each with its path. Fields that nobody asked for become
// warnings. It knows nothing of apps.
package document

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// MaxDepth is how deep arrays and objects may be nested: an app needs eight, a tree of groups some more.
const MaxDepth = 100

// Kind tells the JSON types apart.
type Kind string

// The kinds of Value.
const (
	Null   Kind = "null"
	Bool   Kind = "boolean"
	Number Kind = "number"
	String Kind = "string"
	Array  Kind = "array"
	Object Kind = "object"
)

// Value is one JSON value.
type Value struct {
	Kind   Kind
	Bool   bool
	Text   string // of a String; of a Number, as written
	List   []*Value
	Keys   []string // of an Object, in the order written
	Fields map[string]*Value
}

// SyntaxError says that a text is not JSON at all (HTTP 400), unlike JSON of the wrong shape (422).
type SyntaxError struct {
	// Empty: there was nothing to read.
	Empty bool
	// Text says what is wrong and where.
	Text string
}

// Error gives the text.
func (e *SyntaxError) Error() string { return e.Text }

// Parse reads one JSON value. A text that is not JSON is a *SyntaxError; one with duplicate keys or NUL characters is
// fault.Invalid with their paths.
func Parse(data []byte) (*Value, error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, &SyntaxError{Empty: true, Text: "No content to map due to end-of-input\n at [Source: (String)\"\"; line: 1, column: 0]"}
	}
	if at := invalidUTF8(data); at >= 0 {
		return nil, syntax(data, at, "invalid UTF-8")
	}
	if at := tooDeep(data); at >= 0 {
		return nil, syntax(data, at, fmt.Sprintf("nested deeper than %d levels", MaxDepth))
	}
	var whole json.RawMessage
	if err := json.Unmarshal(data, &whole); err != nil {
		var se *json.SyntaxError
		if errors.As(err, &se) {
			return nil, syntax(data, int(se.Offset), se.Error())
		}
		return nil, &SyntaxError{Text: err.Error()}
	}
	p := &parser{dec: json.NewDecoder(bytes.NewReader(data))}
	p.dec.UseNumber()
	v, err := p.value("")
	if err != nil {
		return nil, &SyntaxError{Text: err.Error()}
	}
	return v, p.problems.Err("Invalid JSON")
}

func invalidUTF8(data []byte) int {
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

// tooDeep looks before the recursive parsers do. It need not be right about texts that are not JSON.
func tooDeep(data []byte) int {
	depth, quoted := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > MaxDepth {
				return i
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return -1
}

func syntax(data []byte, offset int, text string) error {
	offset = max(0, min(offset, len(data)))
	line := 1 + bytes.Count(data[:offset], []byte("\n"))
	column := offset - bytes.LastIndexByte(data[:offset], '\n')
	return &SyntaxError{Text: fmt.Sprintf("%s\n at [line: %d, column: %d]", text, line, column)}
}

type parser struct {
	dec      *json.Decoder
	problems Problems
}

func (p *parser) value(path string) (*Value, error) {
	tok, err := p.dec.Token()
	if err != nil {
		return nil, unexpectedEnd(err)
	}
	switch t := tok.(type) {
	case json.Delim:
		if t == '{' {
			return p.object(path)
		}
		return p.array(path)
	case string:
		if strings.ContainsRune(t, 0) {
			p.problems.Add(at(path), "must not contain the character NUL")
		}
		return &Value{Kind: String, Text: t}, nil
	case json.Number:
		return &Value{Kind: Number, Text: t.String()}, nil
	case bool:
		return &Value{Kind: Bool, Bool: t}, nil
	}
	return &Value{Kind: Null}, nil
}

func (p *parser) object(path string) (*Value, error) {
	v := &Value{Kind: Object, Fields: map[string]*Value{}}
	for p.dec.More() {
		tok, err := p.dec.Token()
		if err != nil {
			return nil, unexpectedEnd(err)
		}
		key, ok := tok.(string)
		if !ok {
			return nil, fmt.Errorf("a field name must be a string")
		}
		child := path + "/" + key
		if strings.ContainsRune(key, 0) {
			p.problems.Add(at(path), "a field name must not contain the character NUL")
		}
		item, err := p.value(child)
		if err != nil {
			return nil, err
		}
		if _, twice := v.Fields[key]; twice {
			p.problems.Add(child, "is given more than once")
			continue
		}
		v.Keys = append(v.Keys, key)
		v.Fields[key] = item
	}
	_, err := p.dec.Token()
	return v, unexpectedEnd(err)
}

func (p *parser) array(path string) (*Value, error) {
	v := &Value{Kind: Array}
	for p.dec.More() {
		item, err := p.value(fmt.Sprintf("%s(%d)", path, len(v.List)))
		if err != nil {
			return nil, err
		}
		v.List = append(v.List, item)
	}
	_, err := p.dec.Token()
	return v, unexpectedEnd(err)
}

func unexpectedEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Set replaces or adds a field of an Object.
func (v *Value) Set(key string, item *Value) {
	if v.Kind != Object {
		return
	}
	if _, there := v.Fields[key]; !there {
		v.Keys = append(v.Keys, key)
	}
	v.Fields[key] = item
}

// Compact prints the value without white space, keys in the order written.
func (v *Value) Compact() string {
	var b strings.Builder
	v.write(&b)
	return b.String()
}

func (v *Value) write(b *strings.Builder) {
	switch v.Kind {
	case Bool:
		fmt.Fprintf(b, "%t", v.Bool)
	case Number:
		b.WriteString(v.Text)
	case String:
		b.Write(Quote(v.Text))
	case Array:
		b.WriteByte('[')
		for i, item := range v.List {
			if i > 0 {
				b.WriteByte(',')
			}
			item.write(b)
		}
		b.WriteByte(']')
	case Object:
		b.WriteByte('{')
		for i, k := range v.Keys {
			if i > 0 {
				b.WriteByte(',')
			}
			b.Write(Quote(k))
			b.WriteByte(':')
			v.Fields[k].write(b)
		}
		b.WriteByte('}')
	default:
		b.WriteString("null")
	}
}

// Quote gives a JSON string without HTML escapes.
func Quote(s string) []byte { return Marshal(s) }

// Marshal is json.Marshal without HTML escapes, for values that cannot fail.
func Marshal(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return []byte("null")
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// at gives the path as Marathon prints it: the root is "/".
func at(path string) string {
	if path == "" {
		return "/"
	}
	return path
}

// Problems collects what is wrong, by path, in the order found.
type Problems struct{ list []fault.Detail }

// Add notes one error at a path.
func (p *Problems) Add(path, text string) {
	for i := range p.list {
		if p.list[i].Path == path {
			p.list[i].Errors = append(p.list[i].Errors, text)
			return
		}
	}
	p.list = append(p.list, fault.Detail{Path: path, Errors: []string{text}})
}

// Has tells whether anything was noted at a path.
func (p *Problems) Has(path string) bool {
	for i := range p.list {
		if p.list[i].Path == path {
			return true
		}
	}
	return false
}

// Details gives what was noted.
func (p *Problems) Details() []fault.Detail { return p.list }

// Err gives nil, or fault.Invalid with a message and everything noted.
func (p *Problems) Err(message string) error {
	if len(p.list) == 0 {
		return nil
	}
	return fault.WithDetails(fault.Invalid, message, p.list...)
}

package wire

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"

	"github.com/gogo/protobuf/proto"
)

// SyntaxError is returned for a body that is not JSON.
type SyntaxError struct {
	Line int    // counted from 1
	Near string // what follows the place of the error, shortened
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("syntax error at line %d near: %s", e.Line, e.Near)
}

// ConvertError is returned for JSON that is not the message wanted.
type ConvertError string

func (e ConvertError) Error() string { return string(e) }

// FromJSON decodes a message as Mesos does: unknown fields are ignored, enum values that are not
// known count as not set, and required fields that are missing are all named at once.
func FromJSON(body []byte, m proto.Message) error {
	var v any
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return syntaxError(body, err, d.InputOffset())
	}
	if d.More() {
		return &SyntaxError{Line: line(body, d.InputOffset()), Near: near(body, d.InputOffset())}
	}
	obj, ok := v.(map[string]any)
	if !ok {
		return ConvertError("Expecting a JSON object")
	}
	var dec decoder
	if err := dec.message(reflect.ValueOf(m).Elem(), obj, ""); err != nil {
		return err
	}
	if len(dec.missing) > 0 {
		return ConvertError("Missing required fields: " + strings.Join(dec.missing, ", "))
	}
	return nil
}

func syntaxError(body []byte, err error, off int64) error {
	// Offset counts the byte that was wrong as read; Mesos shows what begins there.
	if se, ok := err.(*json.SyntaxError); ok {
		off = se.Offset - 1
	}
	return &SyntaxError{Line: line(body, off), Near: near(body, off)}
}

func line(body []byte, off int64) int {
	return 1 + bytes.Count(body[:min(max(off, 0), int64(len(body)))], []byte("\n"))
}

func near(body []byte, off int64) string {
	rest := body[min(max(off, 0), int64(len(body))):]
	if i := bytes.IndexByte(rest, '\n'); i >= 0 {
		rest = rest[:i]
	}
	s := strings.TrimRight(string(rest[:min(len(rest), 100)]), "}")
	return strings.TrimSpace(s)
}

type decoder struct{ missing []string }

func (d *decoder) message(v reflect.Value, obj map[string]any, path string) error {
	for _, f := range fieldsOf(v.Type()) {
		raw, present := obj[f.name]
		full := f.name
		if path != "" {
			full = path + "." + f.name
		}
		if raw == nil {
			present = false
		}
		if present {
			set, err := d.value(v.Field(f.index), raw, f.enum, full)
			if err != nil {
				return err
			}
			present = set
		}
		if f.required && !present {
			d.missing = append(d.missing, full)
		}
	}
	return nil
}

// value decodes raw into v; set is false for an enum value nobody knows.
func (d *decoder) value(v reflect.Value, raw any, enum, path string) (set bool, err error) {
	switch v.Kind() {
	case reflect.Pointer:
		n := reflect.New(v.Type().Elem())
		set, err = d.value(n.Elem(), raw, enum, path)
		if set && err == nil {
			v.Set(n)
		}
		return set, err
	case reflect.Struct:
		obj, ok := raw.(map[string]any)
		if !ok {
			return false, wrong(raw, path)
		}
		return true, d.message(v, obj, path)
	case reflect.Map:
		return true, d.mapping(v, raw, path)
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return true, decodeBytes(v, raw, path)
		}
		return true, d.list(v, raw, enum, path)
	}
	if enum != "" {
		return decodeEnum(v, raw, enum, path)
	}
	return true, decodeScalar(v, raw, path)
}

func wrong(raw any, path string) error {
	kind := "null"
	switch raw.(type) {
	case map[string]any:
		kind = "object"
	case []any:
		kind = "array"
	case string:
		kind = "string"
	case json.Number:
		kind = "number"
	case bool:
		kind = "boolean"
	}
	return ConvertError(fmt.Sprintf("Not expecting a JSON %s for field '%s'", kind, path))
}

func (d *decoder) list(v reflect.Value, raw any, enum, path string) error {
	items, ok := raw.([]any)
	if !ok {
		return wrong(raw, path)
	}
	out := reflect.MakeSlice(v.Type(), 0, min(len(items), 1024))
	for i, it := range items {
		e := reflect.New(v.Type().Elem()).Elem()
		if it == nil {
			return wrong(it, path)
		}
		set, err := d.value(e, it, enum, path+"["+strconv.Itoa(i)+"]")
		if err != nil {
			return err
		}
		if set {
			out = reflect.Append(out, e)
		}
	}
	v.Set(out)
	return nil
}

func (d *decoder) mapping(v reflect.Value, raw any, path string) error {
	obj, ok := raw.(map[string]any)
	if !ok {
		return wrong(raw, path)
	}
	out := reflect.MakeMap(v.Type())
	for k, it := range obj {
		e := reflect.New(v.Type().Elem()).Elem()
		if _, err := d.value(e, it, "", path+"['"+k+"']"); err != nil {
			return err
		}
		out.SetMapIndex(reflect.ValueOf(k).Convert(v.Type().Key()), e)
	}
	v.Set(out)
	return nil
}

func decodeBytes(v reflect.Value, raw any, path string) error {
	s, ok := raw.(string)
	if !ok {
		return wrong(raw, path)
	}
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return ConvertError(fmt.Sprintf("Failed to base64 decode bytes field '%s': %v", path, err))
	}
	v.SetBytes(b)
	return nil
}

func decodeEnum(v reflect.Value, raw any, enum, path string) (bool, error) {
	switch x := raw.(type) {
	case string:
		n, ok := proto.EnumValueMap(enum)[x]
		if !ok {
			return false, nil
		}
		v.SetInt(int64(n))
		return true, nil
	case json.Number:
		n, err := strconv.ParseInt(x.String(), 10, 32)
		if err != nil {
			return false, wrong(raw, path)
		}
		for _, known := range proto.EnumValueMap(enum) {
			if int64(known) == n {
				v.SetInt(n)
				return true, nil
			}
		}
		return false, nil
	}
	return false, wrong(raw, path)
}

func decodeScalar(v reflect.Value, raw any, path string) error {
	switch v.Kind() {
	case reflect.String:
		if s, ok := raw.(string); ok {
			v.SetString(s)
			return nil
		}
	case reflect.Bool:
		if b, ok := raw.(bool); ok {
			v.SetBool(b)
			return nil
		}
	case reflect.Float32, reflect.Float64:
		if n, ok := raw.(json.Number); ok {
			if f, err := n.Float64(); err == nil {
				v.SetFloat(f)
				return nil
			}
		}
	case reflect.Int32, reflect.Int64:
		if n, ok := number(raw); ok && !v.OverflowInt(n) {
			v.SetInt(n)
			return nil
		}
	case reflect.Uint32, reflect.Uint64:
		if u, ok := unsigned(raw); ok && !v.OverflowUint(u) {
			v.SetUint(u)
			return nil
		}
	}
	return wrong(raw, path)
}

func number(raw any) (int64, bool) {
	n, ok := raw.(json.Number)
	if !ok {
		return 0, false
	}
	if i, err := n.Int64(); err == nil {
		return i, true
	}
	f, err := n.Float64()
	if err != nil || math.Trunc(f) != f || f < math.MinInt64 || f >= math.MaxInt64 {
		return 0, false
	}
	return int64(f), true
}

func unsigned(raw any) (uint64, bool) {
	n, ok := raw.(json.Number)
	if !ok {
		return 0, false
	}
	if u, err := strconv.ParseUint(n.String(), 10, 64); err == nil {
		return u, true
	}
	i, ok := number(raw)
	return uint64(i), ok && i >= 0
}

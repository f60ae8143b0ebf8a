package wire

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/gogo/protobuf/proto"
)

// field is what the struct tags of a generated message say of one field.
type field struct {
	index    int
	name     string // protobuf's name, which is the JSON key
	required bool
	enum     string // registered name of the enum, empty when the field is none
}

var fieldCache sync.Map // reflect.Type of a message struct -> []field

func fieldsOf(t reflect.Type) []field {
	if f, ok := fieldCache.Load(t); ok {
		return f.([]field)
	}
	var out []field
	for i := range t.NumField() {
		tag := t.Field(i).Tag.Get("protobuf")
		if tag == "" {
			continue
		}
		f := field{index: i}
		for part := range strings.SplitSeq(tag, ",") {
			switch {
			case part == "req":
				f.required = true
			case strings.HasPrefix(part, "name="):
				f.name = part[len("name="):]
			case strings.HasPrefix(part, "enum="):
				f.enum = part[len("enum="):]
			}
		}
		out = append(out, f)
	}
	fieldCache.Store(t, out)
	return out
}

// JSON encodes a message the way Mesos does: fields that are not set and empty lists are left out,
// enums are names, bytes are base64, 64 bit integers are plain numbers.
func JSON(m proto.Message) ([]byte, error) {
	return appendMessage(nil, reflect.Indirect(reflect.ValueOf(m)))
}

func appendMessage(b []byte, v reflect.Value) ([]byte, error) {
	b = append(b, '{')
	first := true
	var err error
	for _, f := range fieldsOf(v.Type()) {
		fv := v.Field(f.index)
		if unset(fv) {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(b, '"')
		b = append(b, f.name...)
		b = append(b, '"', ':')
		if b, err = appendValue(b, fv, f.enum); err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return append(b, '}'), nil
}

func unset(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Pointer:
		return v.IsNil()
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return v.IsNil()
		}
		return v.Len() == 0
	case reflect.Map:
		return v.Len() == 0
	}
	return false
}

func appendValue(b []byte, v reflect.Value, enum string) ([]byte, error) {
	switch v.Kind() {
	case reflect.Pointer:
		return appendValue(b, v.Elem(), enum)
	case reflect.Struct:
		return appendMessage(b, v)
	case reflect.Map:
		return appendMap(b, v)
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			b = append(b, '"')
			b = base64.StdEncoding.AppendEncode(b, v.Bytes())
			return append(b, '"'), nil
		}
		b = append(b, '[')
		var err error
		for i := range v.Len() {
			if i > 0 {
				b = append(b, ',')
			}
			if b, err = appendValue(b, v.Index(i), enum); err != nil {
				return nil, err
			}
		}
		return append(b, ']'), nil
	case reflect.String:
		return appendString(b, v.String())
	case reflect.Bool:
		return strconv.AppendBool(b, v.Bool()), nil
	case reflect.Int32, reflect.Int64:
		if enum != "" {
			return appendEnum(b, v, enum)
		}
		return strconv.AppendInt(b, v.Int(), 10), nil
	case reflect.Uint32, reflect.Uint64:
		return strconv.AppendUint(b, v.Uint(), 10), nil
	case reflect.Float32, reflect.Float64:
		return appendFloat(b, v.Float())
	}
	return nil, fmt.Errorf("cannot encode a %s", v.Kind())
}

func appendEnum(b []byte, v reflect.Value, enum string) ([]byte, error) {
	if s, ok := v.Interface().(fmt.Stringer); ok {
		if _, known := proto.EnumValueMap(enum)[s.String()]; known || proto.EnumValueMap(enum) == nil {
			return appendString(b, s.String())
		}
	}
	return strconv.AppendInt(b, v.Int(), 10), nil
}

func appendMap(b []byte, v reflect.Value) ([]byte, error) {
	keys := v.MapKeys()
	slices.SortFunc(keys, func(x, y reflect.Value) int { return strings.Compare(x.String(), y.String()) })
	b = append(b, '{')
	var err error
	for i, k := range keys {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = appendString(b, k.String()); err != nil {
			return nil, err
		}
		b = append(b, ':')
		if b, err = appendValue(b, v.MapIndex(k), ""); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

func appendString(b []byte, s string) ([]byte, error) {
	q, err := json.Marshal(s)
	return append(b, q...), err
}

// appendFloat writes a double with a fraction, as Mesos does (2.0, not 2).
func appendFloat(b []byte, f float64) ([]byte, error) {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return nil, fmt.Errorf("%v has no JSON form", f)
	}
	at := len(b)
	b = strconv.AppendFloat(b, f, 'f', -1, 64)
	if !slices.Contains(b[at:], '.') {
		b = append(b, '.', '0')
	}
	return b, nil
}

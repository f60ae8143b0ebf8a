package store

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Version is the newest record version that this program writes and reads.
const Version = 1

// MaxRecord bounds one record as it is stored, in bytes; larger is refused (back ends have 512 KiB for a whole transaction).
const MaxRecord = 256 << 10

// header is what every record begins with; the value's own fields follow in the same object.
type header struct {
	V    int        `json:"v"`
	Kind state.Kind `json:"kind"`
	Rev  uint64     `json:"rev"`
}

// newValue gives an empty value of a kind, nil for a kind that is not known.
func newValue(kind state.Kind) any {
	switch kind {
	case state.KindFramework:
		return new(state.Framework)
	case state.KindApp:
		return new(state.App)
	case state.KindDef:
		return new(state.Def)
	case state.KindInstance:
		return new(state.Instance)
	case state.KindVolume:
		return new(state.Volume)
	case state.KindReserved:
		return new(state.Reserved)
	case state.KindDeployment:
		return new(state.Deployment)
	case state.KindGroup:
		return new(state.AppGroup)
	case state.KindClass:
		return new(state.Class)
	case state.KindOperation:
		return new(state.Operation)
	case state.KindOrder:
		return new(state.NodeOrder)
	case state.KindHold:
		return new(state.Hold)
	}
	return nil
}

// idOf gives the Write.ID of a value and whether value is of the kind's type.
func idOf(kind state.Kind, value any) (string, bool) {
	switch v := value.(type) {
	case *state.Framework:
		return "", kind == state.KindFramework && v != nil
	case *state.App:
		return string(v.ID), kind == state.KindApp && v.ID != ""
	case *state.Def:
		return state.DefID(v.App, v.Version), kind == state.KindDef && v.App != "" && v.Version != ""
	case *state.Instance:
		return string(v.ID), kind == state.KindInstance && v.ID != ""
	case *state.Volume:
		return string(v.UID), kind == state.KindVolume && v.UID != ""
	case *state.Reserved:
		return string(v.ID), kind == state.KindReserved && v.ID != ""
	case *state.Deployment:
		return string(v.ID), kind == state.KindDeployment && v.ID != ""
	case *state.Class:
		return v.Name, kind == state.KindClass && v.Name != ""
	case *state.AppGroup:
		return string(v.ID), kind == state.KindGroup && v.ID != ""
	case *state.Operation:
		return v.ID, kind == state.KindOperation && v.ID != ""
	case *state.NodeOrder:
		return v.ID, kind == state.KindOrder && v.ID != ""
	case *state.Hold:
		return "", kind == state.KindHold && v != nil
	}
	return "", false
}

// encode makes the record of a write's value.
func encode(w state.Write) ([]byte, error) {
	id, ok := idOf(w.Kind, w.Value)
	if !ok || id != w.ID {
		return nil, fault.New(fault.Internal, "write of %s %q carries a %T of id %q", w.Kind, w.ID, w.Value, id)
	}
	body, err := json.Marshal(w.Value)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "encode %s %q", w.Kind, w.ID)
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, `{"v":%d,"kind":%q`, Version, w.Kind)
	if w.Kind == state.KindDef { // never changes, so it keeps no count of its own
		out.WriteString(`,"rev":1`)
	}
	if !bytes.Equal(body, []byte("{}")) {
		out.WriteByte(',')
	}
	out.Write(body[1:])
	record := packRecord(w.Kind, out.Bytes())
	if len(record) > MaxRecord || out.Len() > maxUnpacked {
		return nil, fault.New(fault.Invalid, "record of %s %q would be %d bytes, more than %d", w.Kind, w.ID, len(record), MaxRecord)
	}
	return record, nil
}

// decode reads a record and checks that it belongs at key (below the prefix).
func decode(key string, raw []byte) (state.Write, error) {
	raw, err := unpackRecord(raw)
	if err != nil {
		return state.Write{}, err
	}
	var h header
	if err := json.Unmarshal(raw, &h); err != nil {
		return state.Write{}, fmt.Errorf("not a record: %w", err)
	}
	if h.V > Version {
		return state.Write{}, fmt.Errorf("version %d is newer than this program knows (%d)", h.V, Version)
	}
	if h.V < 1 {
		return state.Write{}, fmt.Errorf("no version")
	}
	if h.Kind == kindMoved {
		return state.Write{}, moved(raw)
	}
	value := newValue(h.Kind)
	if value == nil {
		return state.Write{}, fmt.Errorf("kind %.40q is not known", h.Kind)
	}
	if err := json.Unmarshal(raw, value); err != nil {
		return state.Write{}, fmt.Errorf("%s record: %w", h.Kind, err)
	}
	id, ok := idOf(h.Kind, value)
	if !ok {
		return state.Write{}, fmt.Errorf("%s record without id", h.Kind)
	}
	want, err := keyOf(h.Kind, id)
	if err != nil || want != key {
		return state.Write{}, fmt.Errorf("%s record of %.200q does not belong at this key", h.Kind, id)
	}
	return state.Write{Kind: h.Kind, ID: id, Value: value}, nil
}

// Decode reads a record at key (below the prefix).
func Decode(key string, raw []byte) (state.Write, error) { return decode(key, raw) }

// CheckRecord tells what is wrong with a record at key (below the prefix), nil when this program can read it.
func CheckRecord(key string, raw []byte) error {
	_, err := decode(key, raw)
	return err
}

package store

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"

	"github.com/holdfast-io/holdfast/scheduler/state"
)

// packFrom is the size from which a record is stored packed: a deployment of thousands of apps, a definition with a long environment. Back ends
// hold large values badly (ZooKeeper refuses 1 MiB, Consul 512 KiB), and such records say much the same again and again.
const packFrom = 48 << 10

// maxUnpacked bounds what a packed record may become.
const maxUnpacked = 32 << 20

// packed is a record as it is stored then: what every record begins with, and the whole of it by gzip.
type packed struct {
	V    int        `json:"v"`
	Kind state.Kind `json:"kind"`
	GZ   []byte     `json:"gz"`
}

// packRecord gives the shorter form of a large record.
func packRecord(kind state.Kind, record []byte) []byte {
	if len(record) < packFrom {
		return record
	}
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return record
	}
	_, _ = z.Write(record) // a Buffer takes everything
	_ = z.Close()
	out, err := json.Marshal(packed{Version, kind, b.Bytes()})
	if err != nil || len(out) >= len(record) {
		return record
	}
	return out
}

// unpackRecord gives a record as it was before packRecord.
func unpackRecord(raw []byte) ([]byte, error) {
	if !bytes.Contains(raw[:min(len(raw), 100)], []byte(`"gz":`)) {
		return raw, nil
	}
	var p packed
	if err := json.Unmarshal(raw, &p); err != nil {
		return nil, fmt.Errorf("not a record: %w", err)
	}
	if p.GZ == nil || p.V > Version {
		return raw, nil // the caller says what is wrong with it
	}
	z, err := gzip.NewReader(bytes.NewReader(p.GZ))
	if err != nil {
		return nil, fmt.Errorf("packed record: %w", err)
	}
	out, err := io.ReadAll(io.LimitReader(z, maxUnpacked+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("packed record: %w", err)
	case len(out) > maxUnpacked:
		return nil, fmt.Errorf("packed record: larger than %d bytes", maxUnpacked)
	}
	var h header
	if err := json.Unmarshal(out, &h); err != nil || h.Kind != p.Kind {
		return nil, fmt.Errorf("packed record: it is not of kind %.40q", p.Kind)
	}
	return out, nil
}

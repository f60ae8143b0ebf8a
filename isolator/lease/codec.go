package lease

import (
	"encoding/json"
	"errors"
	"sync"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
)

// recordVersion is the V of every record that this program writes and the only one that it reads: a newer
// program may mean by its records what this one would overlook.
const recordVersion = 1

// nameRecord is the register names/…: which volume has this natural key now.
type nameRecord struct {
	V         int        `json:"v"`
	Ref       volume.Ref `json:"ref"`
	VolumeUID string     `json:"volume"`
}

func encode(record any) []byte {
	b, err := json.Marshal(record)
	if err != nil {
		panic("lease: a record that cannot be encoded: " + err.Error()) // the records are plain data
	}
	return b
}

// decode reads a record, after a look at its version. The error names the register; it concerns that one only.
func decode(e Entry, into any) error {
	var head struct {
		V int `json:"v"`
	}
	err := json.Unmarshal(e.Value, &head)
	if err == nil && head.V != recordVersion {
		return fault.New(fault.Internal, "register %s has record version %d, this program knows %d", e.Key, head.V, recordVersion)
	}
	if err == nil {
		err = json.Unmarshal(e.Value, into)
	}
	return fault.Wrap(fault.Internal, err, "register %s cannot be read", e.Key)
}

func decodeClaim(e Entry) (ClaimVersion, error) {
	cv := ClaimVersion{Version: e.Version}
	if err := decode(e, &cv.Claim); err != nil {
		return ClaimVersion{}, err
	}
	switch {
	case claimKey(cv.VolumeUID) != e.Key:
		return ClaimVersion{}, fault.New(fault.Internal, "register %s holds the claim of volume %q", e.Key, cv.VolumeUID)
	case cv.State != Free && cv.State != Granted && cv.State != Held:
		return ClaimVersion{}, fault.New(fault.Internal, "register %s has state %q, which this program does not know", e.Key, cv.State)
	}
	return cv, nil
}

func decodeNode(e Entry) (NodeVersion, error) {
	nv := NodeVersion{Version: e.Version}
	if err := decode(e, &nv.Node); err != nil {
		return NodeVersion{}, err
	}
	if nodeKey(nv.UID) != e.Key {
		return NodeVersion{}, fault.New(fault.Internal, "register %s holds the record of node %q", e.Key, nv.UID)
	}
	return nv, nil
}

func decodeRequest(e Entry) (RequestVersion, error) {
	rv := RequestVersion{Version: e.Version}
	err := decode(e, &rv.Request)
	return rv, err
}

// decodeAll reads what can be read. The records that cannot be are named in the error, which comes beside the others.
func decodeAll[T any](entries []Entry, one func(Entry) (T, error)) ([]T, error) {
	out := make([]T, 0, len(entries))
	var bad []error
	for _, e := range entries {
		v, err := one(e)
		if err != nil {
			bad = append(bad, err)
			continue
		}
		out = append(out, v)
	}
	if len(bad) > 0 {
		return out, &BadRecords{errors.Join(bad...)}
	}
	return out, nil
}

// BadRecords is the error of Claims, Nodes and Requests when some registers could not be read: the result holds all the
// others. Whoever decides may go on with those; for the volumes and nodes named nothing must be decided.
type BadRecords struct{ Err error }

// Error names each of the registers.
func (b *BadRecords) Error() string { return b.Err.Error() }

// Unwrap gives the errors.
func (b *BadRecords) Unwrap() error { return b.Err }

// OnlyBadRecords takes a BadRecords apart from other errors: bad is to be reported, fatal to be handled.
func OnlyBadRecords(err error) (bad *BadRecords, fatal error) {
	if errors.As(err, &bad) {
		return bad, nil
	}
	return nil, err
}

// claimCache keeps claims as they were decoded, by key and version: most of a list is as it was in the last one, and a version never
// comes again with another content.
type claimCache struct {
	mu   sync.Mutex
	seen map[string]ClaimVersion
}

func (c *claimCache) decodeAll(entries []Entry) ([]ClaimVersion, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen == nil || len(c.seen) > 2*len(entries)+64 {
		c.seen = make(map[string]ClaimVersion, len(entries))
	}
	return decodeAll(entries, func(e Entry) (ClaimVersion, error) {
		if cv, ok := c.seen[e.Key]; ok && cv.Version == e.Version {
			return cv, nil
		}
		cv, err := decodeClaim(e)
		if err == nil {
			c.seen[e.Key] = cv
		}
		return cv, err
	})
}

package store

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// kindMoved is what stands at meta/framework of a store whose state was moved. Programs that do not know it refuse the store as well, since they cannot read that record.
const kindMoved state.Kind = "moved"

// Moved is the error, and the record, that says that the state is elsewhere now.
type Moved struct {
	To string    `json:"to"` // address of the store, or a directory; no secrets
	At time.Time `json:"at"`
	// Was is the framework's own record as it was moved.
	Was json.RawMessage `json:"was"`
}

func (m *Moved) Error() string {
	return fmt.Sprintf("the state was moved to %s at %s (holdfast state migrate): start the framework on that one, and never again on this one", m.To, m.At.UTC().Format(time.RFC3339))
}

// FrameworkKey is where the framework's own record is, or what says that it was moved.
func FrameworkKey(cluster string) string { return Prefix(cluster) + "meta/framework" }

// Seal gives the op that marks a store as moved.
func (m Moved) Seal(cluster string) (Op, error) {
	raw, err := json.Marshal(struct {
		header
		Moved
	}{header{Version, kindMoved, 1}, m})
	return Op{Key: FrameworkKey(cluster), Value: raw}, fault.Wrap(fault.Internal, err, "encode the mark of a moved state")
}

// moved is the error of a record that says so.
func moved(raw []byte) error {
	var m Moved
	if err := json.Unmarshal(raw, &m); err != nil || m.To == "" || len(m.Was) == 0 {
		return fmt.Errorf("the state was moved, but the record does not say where: %v", err)
	}
	return &m
}

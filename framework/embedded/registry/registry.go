// Package registry is the durable memory of the engine's master: its own id, the counters that ids
// are minted from, the agents it has admitted and the frameworks it knows, in one bbolt file.
// Tasks are not in it: agents bring them along when they reregister, as with Mesos.
//
// Every method that changes something returns after fdatasync.
package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"
	mesos "github.com/mesos/mesos-go/api/v1/lib"
	bolt "go.etcd.io/bbolt"
)

// AgentState is what the master has durably decided about an agent.
type AgentState string

// The states of an agent. An agent that is not in the registry is unknown.
const (
	Admitted    AgentState = "admitted"
	Unreachable AgentState = "unreachable"
	Gone        AgentState = "gone"
)

// Agent is the record of an agent.
type Agent struct {
	ID    string          `json:"id"`
	State AgentState      `json:"state"`
	Since time.Time       `json:"since"` // of the state
	Info  mesos.AgentInfo `json:"-"`
	Raw   []byte          `json:"info"` // Info in protobuf
	// Deactivated and Drain survive the agent's and the master's restarts.
	Deactivated bool   `json:"deactivated,omitempty"`
	Drain       []byte `json:"drain,omitempty"` // mesos.DrainInfo in protobuf
}

// Framework is the record of a framework.
type Framework struct {
	ID         string              `json:"id"`
	Info       mesos.FrameworkInfo `json:"-"`
	Raw        []byte              `json:"info"` // Info in protobuf
	Registered time.Time           `json:"registered"`
	Removed    time.Time           `json:"removed,omitzero"` // zero while it is not
}

// Registry is safe for concurrent use.
type Registry struct {
	db       *bolt.DB
	masterID string
}

var (
	bucketMeta       = []byte("meta")
	bucketAgents     = []byte("agents")
	bucketFrameworks = []byte("frameworks")
	keyMaster        = []byte("master")
	keyVersion       = []byte("version")
)

// version is the format of the file; a newer one is refused.
const version = "1"

// Open opens the registry in dir, making both when they are not there. A file that another process
// holds is an error after two seconds.
func Open(dir string) (*Registry, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	path := filepath.Join(dir, "registry.db")
	_, statErr := os.Stat(path)
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: 2 * time.Second})
	if err != nil {
		return nil, fmt.Errorf("registry %s: %w", path, err)
	}
	r := &Registry{db: db}
	if err := db.Update(r.prepare); err != nil {
		return nil, errors.Join(fmt.Errorf("registry %s: %w", path, err), db.Close())
	}
	if errors.Is(statErr, fs.ErrNotExist) {
		syncDir(dir)
	}
	return r, nil
}

func (r *Registry) prepare(tx *bolt.Tx) error {
	for _, b := range [][]byte{bucketMeta, bucketAgents, bucketFrameworks} {
		if _, err := tx.CreateBucketIfNotExists(b); err != nil {
			return err
		}
	}
	meta := tx.Bucket(bucketMeta)
	switch v := meta.Get(keyVersion); {
	case v == nil:
		if err := meta.Put(keyVersion, []byte(version)); err != nil {
			return err
		}
	case string(v) != version:
		return fmt.Errorf("format %q is not known to this version", v)
	}
	id := meta.Get(keyMaster)
	if id == nil {
		id = []byte(uuid.NewString())
		if err := meta.Put(keyMaster, id); err != nil {
			return err
		}
	}
	r.masterID = string(id)
	return nil
}

func syncDir(dir string) {
	if d, err := os.Open(dir); err == nil {
		_ = d.Sync()
		_ = d.Close()
	}
}

// Close closes the file.
func (r *Registry) Close() error { return r.db.Close() }

// MasterID is minted once.
func (r *Registry) MasterID() string { return r.masterID }

// Reserve takes n numbers of a counter and returns the first. No number is ever returned twice.
func (r *Registry) Reserve(counter string, n uint64) (first uint64, err error) {
	err = r.db.Update(func(tx *bolt.Tx) error {
		meta, key := tx.Bucket(bucketMeta), []byte("next-"+counter)
		first = 0
		if v := meta.Get(key); v != nil {
			if err := json.Unmarshal(v, &first); err != nil {
				return fmt.Errorf("counter %s: %w", counter, err)
			}
		}
		v, err := json.Marshal(first + n)
		if err != nil {
			return err
		}
		return meta.Put(key, v)
	})
	return first, err
}

// PutAgents writes the records of agents in one transaction.
func (r *Registry) PutAgents(agents ...Agent) error {
	return r.put(bucketAgents, len(agents), func(i int) (string, any, error) {
		a := agents[i]
		raw, err := a.Info.Marshal()
		a.Raw = raw
		return a.ID, a, err
	})
}

// PutFrameworks writes the records of frameworks in one transaction.
func (r *Registry) PutFrameworks(fws ...Framework) error {
	return r.put(bucketFrameworks, len(fws), func(i int) (string, any, error) {
		f := fws[i]
		raw, err := f.Info.Marshal()
		f.Raw = raw
		return f.ID, f, err
	})
}

func (r *Registry) put(bucket []byte, n int, record func(i int) (string, any, error)) error {
	if n == 0 {
		return nil
	}
	return r.db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucket)
		for i := range n {
			id, v, err := record(i)
			if err != nil {
				return err
			}
			data, err := json.Marshal(v)
			if err != nil {
				return err
			}
			if err := b.Put([]byte(id), data); err != nil {
				return err
			}
		}
		return nil
	})
}

// PutDocument writes a document of the master's own under a name.
func (r *Registry) PutDocument(name string, data []byte) error {
	return r.db.Update(func(tx *bolt.Tx) error { return tx.Bucket(bucketMeta).Put([]byte("doc-"+name), data) })
}

// Document reads what PutDocument wrote, nil when there is none.
func (r *Registry) Document(name string) (data []byte, err error) {
	err = r.db.View(func(tx *bolt.Tx) error {
		data = append([]byte(nil), tx.Bucket(bucketMeta).Get([]byte("doc-"+name))...)
		return nil
	})
	return data, err
}

// DeleteAgents forgets agents.
func (r *Registry) DeleteAgents(ids ...string) error {
	return r.remove(bucketAgents, ids)
}

// DeleteFrameworks forgets frameworks.
func (r *Registry) DeleteFrameworks(ids ...string) error {
	return r.remove(bucketFrameworks, ids)
}

func (r *Registry) remove(bucket []byte, ids []string) error {
	return r.db.Update(func(tx *bolt.Tx) error {
		for _, id := range ids {
			if err := tx.Bucket(bucket).Delete([]byte(id)); err != nil {
				return err
			}
		}
		return nil
	})
}

// Agents reads all agents, by id.
func (r *Registry) Agents() ([]Agent, error) {
	var out []Agent
	err := r.each(bucketAgents, func(data []byte) error {
		var a Agent
		if err := json.Unmarshal(data, &a); err != nil {
			return err
		}
		out = append(out, a)
		return out[len(out)-1].Info.Unmarshal(a.Raw)
	})
	return out, err
}

// Frameworks reads all frameworks, by id.
func (r *Registry) Frameworks() ([]Framework, error) {
	var out []Framework
	err := r.each(bucketFrameworks, func(data []byte) error {
		var f Framework
		if err := json.Unmarshal(data, &f); err != nil {
			return err
		}
		out = append(out, f)
		return out[len(out)-1].Info.Unmarshal(f.Raw)
	})
	return out, err
}

func (r *Registry) each(bucket []byte, fn func([]byte) error) error {
	return r.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket(bucket).ForEach(func(k, v []byte) error {
			if err := fn(v); err != nil {
				return fmt.Errorf("registry: record %s of %s: %w", k, bucket, err)
			}
			return nil
		})
	})
}

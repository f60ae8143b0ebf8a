package operation

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/client"
)

// book keeps operations on disk, a file each, put in place by rename after a sync.
type book struct {
	dir string

	mu  sync.Mutex
	all map[string]*client.Operation
	bad []string
}

// How long, and how many, operations that are over are kept.
const (
	keepFor  = 24 * time.Hour
	keepMost = 500
)

func openBook(dir string) (*book, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "open the operations")
	}
	b := &book{dir: dir, all: map[string]*client.Operation{}}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "read the operations")
	}
	for _, e := range entries {
		id, isRecord := strings.CutSuffix(e.Name(), ".json")
		if !isRecord {
			_ = os.Remove(filepath.Join(dir, e.Name())) // a record that was being written
			continue
		}
		raw, err := os.ReadFile(filepath.Join(dir, e.Name()))
		var o client.Operation
		if err == nil {
			err = json.Unmarshal(raw, &o)
		}
		if err == nil && o.ID != id {
			err = errors.New("it names operation " + o.ID)
		}
		if err != nil {
			b.bad = append(b.bad, e.Name()+": "+err.Error())
			continue
		}
		b.all[id] = &o
	}
	return b, nil
}

func (b *book) get(id string) (client.Operation, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	o, ok := b.all[id]
	if !ok {
		return client.Operation{}, false
	}
	return *o, true
}

// list gives all, newest first.
func (b *book) list() []client.Operation {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]client.Operation, 0, len(b.all))
	for _, o := range b.all {
		out = append(out, *o)
	}
	slices.SortFunc(out, func(x, y client.Operation) int {
		if c := y.Created.Compare(x.Created); c != 0 {
			return c
		}
		return strings.Compare(x.ID, y.ID)
	})
	return out
}

// put makes a record durable, and shows it only then.
func (b *book) put(o client.Operation) error {
	if err := b.write(o); err != nil {
		return err
	}
	b.show(o)
	return nil
}

// show changes what readers see, for progress that need not be durable.
func (b *book) show(o client.Operation) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all[o.ID] = &o
}

func (b *book) write(o client.Operation) error {
	raw, err := json.Marshal(o)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "encode operation %s", o.ID)
	}
	if err := replace(filepath.Join(b.dir, o.ID+".json"), raw); err != nil {
		return fault.Wrap(fault.Unavailable, err, "record operation %s", o.ID)
	}
	return nil
}

func replace(name string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), "new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return err
	}
	d, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// prune forgets what is over for long, or what is too much.
func (b *book) prune(now time.Time) {
	kept := 0
	for _, o := range b.list() {
		if !o.Over() {
			continue
		}
		if kept++; kept <= keepMost && now.Sub(o.Ended) < keepFor {
			continue
		}
		if err := os.Remove(filepath.Join(b.dir, o.ID+".json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		b.mu.Lock()
		delete(b.all, o.ID)
		b.mu.Unlock()
	}
}

// Package bolt keeps the framework's records in one bbolt file in a directory. The file's lock is the leadership: a second
// process is refused with the pid of the first. Every commit is an fsync.
package bolt

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/holdfast-io/holdfast/framework/store"
	"github.com/holdfast-io/holdfast/internal/fault"
)

// FileName is the name of the state file in its directory.
const FileName = "state.db"

// holderName is the file that says who has the lock; it is read only by those who do not get it.
const holderName = "state.holder"

var bucket = []byte("records")

// Options of Open; the zero value is right for production.
type Options struct {
	// Wait is for how long another holder of the lock is waited for. Default 2 s.
	Wait time.Duration
}

// Backend is a store.Backend over one file.
type Backend struct {
	dir, path string
	wait      time.Duration

	mu     sync.RWMutex
	db     *bbolt.DB
	mine   os.FileInfo // of the file that db has open
	closed bool
	// broken is set by a failed commit: what the file holds is only known again once Lead has opened it anew.
	broken bool
}

var _ store.Backend = (*Backend)(nil)

// Open opens or creates dir/state.db (mode 0600, the directory 0700) and takes its lock. Errors: Conflict when another
// process has it, Unavailable when the directory cannot be written, Internal when the file is damaged.
func Open(dir string, o Options) (*Backend, error) {
	if o.Wait <= 0 {
		o.Wait = 2 * time.Second
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "state directory %q", dir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "create state directory")
	}
	b := &Backend{dir: dir, path: filepath.Join(dir, FileName), wait: o.Wait}
	if b.db, err = b.open(); err != nil {
		return nil, err
	}
	// The file's name must survive a power cut as well as its contents do.
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := syncDir(d); err != nil {
			_ = b.db.Close()
			return nil, fault.Wrap(fault.Unavailable, err, "write state directory")
		}
	}
	return b, nil
}

func syncDir(name string) error {
	d, err := os.Open(name)
	if errors.Is(err, fs.ErrPermission) {
		return nil // a parent that we may pass through but not read: it was there before us
	}
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		err = nil // file systems that cannot, and need not
	}
	return errors.Join(err, d.Close())
}

func (b *Backend) open() (db *bbolt.DB, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer damaged(&err, "open state file "+b.path)
	db, err = bbolt.Open(b.path, 0o600, &bbolt.Options{Timeout: b.wait, FreelistType: bbolt.FreelistMapType, OpenFile: b.openFile})
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return nil, fault.New(fault.Conflict, "state file %s is in use by %s", b.path, b.holder())
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return nil, fault.Wrap(fault.Unavailable, err, "open state file")
	case err != nil:
		return nil, fault.Wrap(fault.Internal, err, "open state file %s", b.path)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bucket)
		return err
	})
	if err == nil {
		err = b.writeHolder()
	}
	if err != nil {
		_ = db.Close()
		return nil, fault.Wrap(ioClass(err), err, "write state file %s", b.path)
	}
	return db, nil
}

func (b *Backend) openFile(name string, flag int, mode os.FileMode) (*os.File, error) {
	f, err := os.OpenFile(name, flag, mode)
	if err != nil {
		return nil, err
	}
	if b.mine, err = f.Stat(); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// writeHolder is not atomic on purpose: it is only ever read by a person's eyes, through an error.
func (b *Backend) writeHolder() error {
	return os.WriteFile(filepath.Join(b.dir, holderName), []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600)
}

func (b *Backend) holder() string {
	raw, err := os.ReadFile(filepath.Join(b.dir, holderName))
	pid, perr := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil || perr != nil {
		return "another process"
	}
	return fmt.Sprintf("the process with pid %d", pid)
}

// Name implements store.Backend.
func (b *Backend) Name() string { return "bolt:" + b.path }

// Limits implements store.Backend: they are there to bound memory, not because the file would mind.
func (b *Backend) Limits() store.Limits { return store.Limits{Writes: 20000, Bytes: 64 << 20} }

// Lead implements store.Backend: the lock is held since Open, so it only counts the term. After a failed commit it opens the file
// anew, so that what Load then reads is what the disk has.
func (b *Backend) Lead(ctx context.Context, cluster, who string) (store.Term, error) {
	if err := store.CheckCluster(cluster); err != nil {
		return 0, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return 0, errClosed
	}
	if b.broken || b.db == nil {
		if err := b.reopen(); err != nil {
			return 0, err
		}
	}
	var term store.Term
	err := b.update(func(bk *bbolt.Bucket) error {
		old, err := leader(bk, cluster)
		if err != nil {
			return err
		}
		term = store.Term(old.Rev) + 1
		raw, err := json.Marshal(store.Leader{V: store.Version, Kind: "leader", Rev: uint64(term), Holder: who})
		if err != nil {
			return err
		}
		return bk.Put([]byte(store.LeaderKey(cluster)), raw)
	})
	if err != nil {
		b.broken = true
		return 0, err
	}
	b.broken = false
	return term, nil
}

func (b *Backend) reopen() error {
	if b.db != nil {
		if err := b.db.Close(); err != nil {
			return fault.Wrap(fault.Unavailable, err, "close state file %s", b.path)
		}
		b.db = nil
	}
	db, err := b.open()
	if err != nil {
		return err
	}
	b.db = db
	return nil
}

func leader(bk *bbolt.Bucket, cluster string) (store.Leader, error) {
	var l store.Leader
	raw := bk.Get([]byte(store.LeaderKey(cluster)))
	if raw == nil {
		return l, nil
	}
	if err := json.Unmarshal(raw, &l); err != nil || l.V != store.Version || l.Kind != "leader" {
		return l, fault.New(fault.Internal, "record %s cannot be read", store.LeaderKey(cluster))
	}
	return l, nil
}

// Load implements store.Backend. It is a snapshot.
func (b *Backend) Load(ctx context.Context, cluster string, f func(string, []byte) error) (err error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.closed || b.db == nil || b.broken {
		return errClosed
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer damaged(&err, "read state file "+b.path)
	prefix, skip := []byte(store.Prefix(cluster)), store.LeaderKey(cluster)
	return b.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucket).Cursor()
		for k, v := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, v = c.Next() {
			if err := ctx.Err(); err != nil {
				return fault.Wrap(fault.Unavailable, err, "read state file")
			}
			if string(k) == skip {
				continue
			}
			if err := f(string(k), v); err != nil {
				return err
			}
		}
		return nil
	})
}

// Commit implements store.Backend. An error of the disk is Unknown: how much of it the disk has is seen after Lead.
func (b *Backend) Commit(ctx context.Context, cluster string, term store.Term, ops []store.Op) error {
	if err := store.CheckBatch(cluster, b.Limits(), ops); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fault.Wrap(fault.Unavailable, err, "commit")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || b.db == nil {
		return errClosed
	}
	if b.broken {
		return fault.New(fault.Unavailable, "state file %s: an earlier commit failed", b.path)
	}
	if err := b.replaced(); err != nil {
		b.broken = true
		return err
	}
	err := b.update(func(bk *bbolt.Bucket) error {
		l, err := leader(bk, cluster)
		if err != nil {
			return err
		}
		if term == 0 || store.Term(l.Rev) != term {
			return store.DeposedError(term, store.Term(l.Rev), l.Holder)
		}
		for _, op := range ops {
			if op.Value == nil {
				err = bk.Delete([]byte(op.Key))
			} else {
				err = bk.Put([]byte(op.Key), op.Value)
			}
			if err != nil {
				return fault.Wrap(fault.Invalid, err, "key %s", op.Key)
			}
		}
		return nil
	})
	if fault.Is(err, fault.Unknown) || fault.Is(err, fault.Internal) {
		b.broken = true
	}
	return err
}

// update runs one transaction. Errors of f come back as they are, those of the disk as Unknown.
func (b *Backend) update(f func(*bbolt.Bucket) error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer damaged(&err, "write state file "+b.path)
	var inner error
	err = b.db.Update(func(tx *bbolt.Tx) error {
		inner = f(tx.Bucket(bucket))
		return inner
	})
	if err != nil && inner == nil {
		return fault.Wrap(fault.Unknown, err, "write state file %s", b.path)
	}
	return err
}

// replaced notices that the file at our path is not the one we have open: writing on into a file without a name would be for nothing.
func (b *Backend) replaced() error {
	at, err := os.Stat(b.path)
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "state file is gone")
	}
	if !os.SameFile(at, b.mine) {
		return fault.New(fault.Unavailable, "state file %s was replaced under the running process", b.path)
	}
	return nil
}

// Clusters implements store.Backend.
func (b *Backend) Clusters(ctx context.Context) (out []string, err error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.closed || b.db == nil {
		return nil, errClosed
	}
	defer damaged(&err, "read state file "+b.path)
	const root = "/holdfast/"
	err = b.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucket).Cursor()
		for k, _ := c.Seek([]byte(root)); k != nil && bytes.HasPrefix(k, []byte(root)); {
			name, _, _ := strings.Cut(string(k[len(root):]), "/")
			out = append(out, name)
			k, _ = c.Seek([]byte(root + name + "0")) // '0' follows '/'
		}
		return nil
	})
	return out, err
}

// Close implements store.Backend.
func (b *Backend) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	if b.db == nil {
		return nil
	}
	err := b.db.Close()
	b.db = nil
	return fault.Wrap(fault.Unavailable, err, "close state file %s", b.path)
}

var errClosed = fault.New(fault.Unavailable, "the store is closed")

func ioClass(err error) fault.Class {
	if fault.ClassOf(err) != fault.Internal {
		return fault.ClassOf(err)
	}
	return fault.Unavailable
}

// damaged turns a panic of bbolt over a damaged file into an error; a read of mapped pages that are not in the file panics too
// where debug.SetPanicOnFault is on.
func damaged(err *error, what string) {
	if p := recover(); p != nil {
		*err = fault.New(fault.Internal, "%s: the file is damaged: %v", what, p)
	}
}

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/cmd/holdfast/console"
	"github.com/holdfast-io/holdfast/framework/store"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/lease/dial"
)

// place is one end of a migration: a store's address, or the directory of a state file.
type place struct {
	address string // as shown: no secrets
	dir     string
	store   storeFlags
}

// newPlace reads FROM or TO of the command line.
func newPlace(text string, files dial.Options) (place, error) {
	p := place{store: storeFlags{files: files}}
	if strings.Contains(text, "://") {
		p.store.address, p.address = text, withoutSecret(text)
		return p, p.store.check()
	}
	dir, err := filepath.Abs(text)
	if err != nil || text == "" {
		return p, console.Usage(fmt.Sprintf("%q is neither a directory nor zk://…, consul://… or consuls://…", text))
	}
	if files != (dial.Options{}) {
		return p, console.Usage(fmt.Sprintf("%s is a directory: it takes no secret and no certificates", text))
	}
	p.dir, p.address = dir, dir
	return p, nil
}

// open opens the store there; cluster "" takes the one that is there.
func (p *place) open(ctx context.Context, cluster string) (store.Backend, *store.Store, error) {
	s := stateFlags{dir: p.dir, store: p.store}
	return s.open(ctx, cluster)
}

func stateMigrateCommand(c *console.Console) *cobra.Command {
	var from, to dial.Options
	var cluster string
	cmd := &cobra.Command{
		Use: "migrate FROM TO", Short: "Move the state to another store",
		Long: "Moves every record from one store to an empty other one. FROM and TO are a framework's directory, or zk://hosts/path, consul://host:port/path, consuls://….\n" +
			"Stop every framework process first: a store that somebody leads is refused. The old store is led by this command meanwhile, and carries a mark afterwards: a\n" +
			"framework that is started on it refuses, and says where the state is. An interrupted migration is finished by running it again." + notAuthority,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := newPlace(args[0], from)
			if err != nil {
				return err
			}
			b, err := newPlace(args[1], to)
			if err != nil {
				return err
			}
			return migrate(cmd.Context(), c, a, b, cluster)
		},
	}
	f := cmd.Flags()
	f.StringVar(&cluster, "cluster", "", "UUID of the cluster, when several are in FROM")
	for name, o := range map[string]*dial.Options{"from": &from, "to": &to} {
		f.StringVar(&o.SecretFile, name+"-secret-file", "", "file with user:password for ZooKeeper, or the token for Consul")
		f.StringVar(&o.CAFile, name+"-ca-file", "", "certificates that consuls:// trusts")
		f.StringVar(&o.CertFile, name+"-cert-file", "", "client certificate for consuls://")
		f.StringVar(&o.KeyFile, name+"-key-file", "", "its key")
	}
	return cmd
}

// migrate copies, verifies, marks the old store, and only then makes the new one whole. At every point at most one of both is a state that a framework starts on.
func migrate(ctx context.Context, c *console.Console, from, to place, cluster string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Minute)
	defer cancel()
	oldBack, old, err := from.open(ctx, cluster)
	if err != nil {
		return err
	}
	defer oldBack.Close()
	if err := leadIdle(ctx, old); err != nil {
		return err
	}
	ops, mark, err := readForMove(ctx, oldBack, old.Cluster())
	if err != nil {
		return err
	}
	if mark != nil && mark.To != to.address {
		return fault.Wrap(fault.Conflict, mark, "migrate %s", from.address)
	}
	newBack, fresh, err := to.open(ctx, old.Cluster())
	if err != nil {
		return err
	}
	defer newBack.Close()
	if err := leadNamed(ctx, newBack, fresh); err != nil {
		return err
	}
	whole, err := vacant(ctx, newBack, fresh.Cluster(), ops, mark != nil)
	if err != nil {
		return err
	}
	if whole { // an earlier attempt did all of it
		fmt.Fprintf(c.Err, "the state of cluster %s was moved to %s before\n", old.Cluster(), to.address)
		return nil
	}
	framework, err := putRecords(ctx, fresh, ops)
	if err == nil {
		err = same(ctx, newBack, fresh.Cluster(), ops)
	}
	if err != nil {
		return fault.Op(err, "copy to %s; nothing was changed in %s", to.address, from.address)
	}
	if mark == nil {
		if err := seal(ctx, old, to.address, framework[0].Value); err != nil {
			return fault.Op(err, "mark %s as moved; run it again", from.address)
		}
	}
	var end store.Batch
	end.Add(framework)
	if err := fresh.Commit(ctx, &end); err != nil {
		return fault.Op(err, "%s is marked as moved, and %s lacks its last record: run it again", from.address, to.address)
	}
	fmt.Fprintf(c.Err, "%d records of cluster %s are in %s now, and %s says so to whoever starts on it; the lease authority was not touched: go on with the same one\n",
		len(ops), old.Cluster(), to.address, from.address)
	return nil
}

// readForMove reads every record. mark is not nil when the store was marked by an earlier attempt; ops are then what they were before.
func readForMove(ctx context.Context, back store.Backend, cluster string) (ops []store.Op, mark *store.Moved, err error) {
	prefix, last := store.Prefix(cluster), false
	err = back.Load(ctx, cluster, func(key string, value []byte) error {
		value = bytes.Clone(value)
		err := store.CheckRecord(strings.TrimPrefix(key, prefix), value)
		if key == store.FrameworkKey(cluster) {
			last = true
			if errors.As(err, &mark) {
				value, err = mark.Was, store.CheckRecord("meta/framework", mark.Was)
			}
		}
		if err != nil {
			return fault.Wrap(fault.Internal, err, "record %s cannot be read", key)
		}
		ops = append(ops, store.Op{Key: key, Value: value})
		return nil
	})
	if err == nil && !last {
		err = fault.New(fault.Conflict, "%s has no record of the framework: it is empty, or what an interrupted import or migration left", back.Name())
	}
	return ops, mark, err
}

// vacant tells whether the new store may be filled: it is empty, or has only what an interrupted attempt left there. whole says that nothing is left to do.
func vacant(ctx context.Context, back store.Backend, cluster string, ops []store.Op, marked bool) (whole bool, err error) {
	want := make(map[string][]byte, len(ops))
	for _, op := range ops {
		want[op.Key] = op.Value
	}
	n, finished, other := 0, false, ""
	err = back.Load(ctx, cluster, func(key string, value []byte) error {
		n++
		finished = finished || key == store.FrameworkKey(cluster)
		if _, ours := want[key]; !ours && other == "" {
			other = key
		}
		return nil
	})
	switch {
	case err != nil || n == 0:
		return false, err
	case finished && marked: // it may have gone on since
		return true, nil
	case finished:
		other = store.FrameworkKey(cluster)
	}
	if other != "" {
		return false, fault.New(fault.Exists, "%s is not empty (it has %s): a state is only moved to an empty store", back.Name(), other)
	}
	return false, nil
}

// same compares what a store has with ops, the framework's own record left out.
func same(ctx context.Context, back store.Backend, cluster string, ops []store.Op) error {
	want := make(map[string][]byte, len(ops))
	for _, op := range ops {
		if op.Key != store.FrameworkKey(cluster) {
			want[op.Key] = op.Value
		}
	}
	err := back.Load(ctx, cluster, func(key string, value []byte) error {
		if !bytes.Equal(want[key], value) {
			return fault.New(fault.Internal, "record %s is not as it was written", key)
		}
		delete(want, key)
		return nil
	})
	if err == nil && len(want) > 0 {
		err = fault.New(fault.Internal, "%d records are missing", len(want))
	}
	return fault.Op(err, "verify %s", back.Name())
}

// seal leaves the mark in the old store. It is bound to the leadership that was taken before the copy: nobody wrote in between.
func seal(ctx context.Context, old *store.Store, to string, framework []byte) error {
	op, err := store.Moved{To: to, At: time.Now().UTC(), Was: framework}.Seal(old.Cluster())
	if err != nil {
		return err
	}
	var b store.Batch
	b.Add([]store.Op{op})
	return old.Commit(ctx, &b)
}

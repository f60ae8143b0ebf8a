package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/cmd/holdfast/console"
	"github.com/holdfast-io/holdfast/framework/store"
	"github.com/holdfast-io/holdfast/framework/store/registers"
	"github.com/holdfast-io/holdfast/internal/fault"
)

// The limits of an exported file's lines, and its format.
const (
	stateFormat  = "holdfast-state"
	stateVersion = 1
	stateLine    = store.MaxRecord + 8192
)

// stateHeader is the first line of an exported file; stateRecord is each of the others but the last, which is a stateEnd.
type stateHeader struct {
	Format  string `json:"format"`
	Version int    `json:"version"`
	Cluster string `json:"cluster"`
}

type stateRecord struct {
	Key   string          `json:"key"` // below the cluster's prefix
	Value json.RawMessage `json:"value"`
}

type stateEnd struct {
	Records *int `json:"records"`
}

// stateFlags are common to export and import.
type stateFlags struct {
	dir, cluster, file string
	store              storeFlags
}

func stateCommand(c *console.Console) *cobra.Command {
	return console.Verbs("state", "The framework's state: write it to a file, read it back, move it to another store, rebuild it", stateExportCommand(c), stateImportCommand(c), stateMigrateCommand(c), stateRecoverCommand(c))
}

func (s *stateFlags) command(use, short, long string, run func(context.Context) error) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Long: long, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		if err := s.store.check(); err != nil {
			return err
		}
		if (s.dir == "") == (s.store.address == "") {
			return console.Usage("one of --dir and --store is needed")
		}
		return run(cmd.Context())
	}}
	s.store.add(cmd.Flags())
	cmd.Flags().StringVar(&s.dir, "dir", "", "the framework's directory, when its state is a file there")
	cmd.Flags().StringVar(&s.cluster, "cluster", "", "UUID of the cluster, when several are there")
	cmd.Flags().StringVar(&s.file, "file", "-", "file of JSON lines; - is standard input or output")
	return cmd
}

const notAuthority = "\n\nOnly the framework's own records are in the file. Claims and leases of volumes are in the lease authority (--authority) and are\n" +
	"never copied: a copy of a live authority would be a second truth about who may write to a volume."

func stateExportCommand(c *console.Console) *cobra.Command {
	var s stateFlags
	return s.command("export", "Write all records of a store to a file",
		"Writes every record of a store as one JSON line, as the last commit left them. Records that this program cannot read are refused by name.\n"+
			"With --dir the framework must be stopped; with --store it may run."+notAuthority,
		func(ctx context.Context) error { return s.export(ctx, c) })
}

func stateImportCommand(c *console.Console) *cobra.Command {
	var s stateFlags
	return s.command("import", "Read a file of export into an empty store",
		"Reads what `state export` wrote into a store that has no records yet, all or nothing as long as it is not interrupted; after an\n"+
			"interruption the store is not empty and must be removed by hand. Stop the framework first: a store that somebody leads is refused."+notAuthority,
		func(ctx context.Context) error { return s.load(ctx, c) })
}

func (s *stateFlags) open(ctx context.Context, cluster string) (store.Backend, *store.Store, error) {
	if s.dir != "" {
		if _, err := os.Stat(s.dir); err != nil && cluster == "" {
			return nil, nil, fault.Wrap(fault.NotFound, err, "state directory")
		}
	}
	back, err := s.store.open(s.dir, "", zap.NewNop())
	if err != nil {
		return nil, nil, err
	}
	have, err := back.Clusters(ctx)
	if err == nil && cluster == "" && len(have) == 0 {
		err = fault.New(fault.NotFound, "%s holds no cluster", back.Name())
	}
	var st *store.Store
	if err == nil {
		st, err = store.Open(ctx, back, cluster, fmt.Sprintf("holdfast state, pid %d", os.Getpid()))
	}
	if err != nil {
		_ = back.Close()
		return nil, nil, err
	}
	return back, st, nil
}

// export writes to a new file beside the one asked for, so that a torn one never stands under its name.
func (s *stateFlags) export(ctx context.Context, c *console.Console) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	back, st, err := s.open(ctx, s.cluster)
	if err != nil {
		return err
	}
	defer back.Close()
	if s.file == "-" {
		_, err := writeState(ctx, back, st, c.Out)
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(s.file), ".state-*") // mode 0600: definitions may hold what is nobody's business
	if err != nil {
		return fault.Wrap(fault.Invalid, err, "write the file")
	}
	defer os.Remove(f.Name())
	n, err := writeState(ctx, back, st, f)
	if err == nil {
		err = errors.Join(f.Sync(), f.Close())
	}
	if err == nil {
		err = os.Rename(f.Name(), s.file)
	}
	if err != nil {
		_ = f.Close()
		return fault.Op(err, "export to %s", s.file)
	}
	fmt.Fprintf(c.Err, "%d records of cluster %s written to %s; claims and leases are in the lease authority and not in it\n", n, st.Cluster(), s.file)
	return nil
}

func writeState(ctx context.Context, back store.Backend, st *store.Store, to io.Writer) (n int, err error) {
	w := bufio.NewWriter(to)
	line := func(v any) error {
		raw, err := json.Marshal(v)
		if err != nil {
			return err
		}
		_, err = w.Write(append(raw, '\n'))
		return err
	}
	if err := line(stateHeader{stateFormat, stateVersion, st.Cluster()}); err != nil {
		return 0, err
	}
	prefix := store.Prefix(st.Cluster())
	err = back.Load(ctx, st.Cluster(), func(key string, value []byte) error {
		rel := strings.TrimPrefix(key, prefix)
		if err := store.CheckRecord(rel, value); err != nil {
			return fault.Wrap(fault.Internal, err, "record %s cannot be read", key)
		}
		n++
		return line(stateRecord{rel, value})
	})
	if err == nil {
		err = line(stateEnd{&n})
	}
	if err == nil {
		err = w.Flush()
	}
	return n, err
}

// readState reads a whole exported file and checks every record before anything is written.
func readState(from io.Reader) (h stateHeader, ops []store.Op, err error) {
	in := bufio.NewScanner(from)
	in.Buffer(nil, stateLine)
	bad := func(line int, why any) error { return fault.New(fault.Invalid, "line %d: %v", line, why) }
	if !in.Scan() || json.Unmarshal(in.Bytes(), &h) != nil || h.Format != stateFormat {
		return h, nil, bad(1, "this is no file of `holdfast state export`")
	}
	if h.Version != stateVersion {
		return h, nil, bad(1, fmt.Sprintf("format version %d; this program knows %d", h.Version, stateVersion))
	}
	if err := store.CheckCluster(h.Cluster); err != nil {
		return h, nil, bad(1, err)
	}
	n, seen := 1, map[string]bool{}
	for in.Scan() {
		n++
		var end stateEnd
		if json.Unmarshal(in.Bytes(), &end) == nil && end.Records != nil {
			if *end.Records != len(ops) || in.Scan() {
				return h, nil, bad(n, fmt.Sprintf("%d records were written, and %d are here", *end.Records, len(ops)))
			}
			return h, ops, nil
		}
		var r stateRecord
		if err := json.Unmarshal(in.Bytes(), &r); err != nil {
			return h, nil, bad(n, err)
		}
		key := store.Prefix(h.Cluster) + r.Key
		if err := errors.Join(store.CheckKey(h.Cluster, key), store.CheckRecord(r.Key, r.Value)); err != nil {
			return h, nil, bad(n, err)
		}
		if seen[r.Key] {
			return h, nil, bad(n, "record "+r.Key+" a second time")
		}
		seen[r.Key] = true
		ops = append(ops, store.Op{Key: key, Value: bytes.Clone(r.Value)})
	}
	if err := in.Err(); err != nil {
		return h, nil, bad(n+1, err)
	}
	return h, nil, bad(n+1, "the end is missing: the file is torn")
}

func (s *stateFlags) load(ctx context.Context, c *console.Console) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	from := c.In
	if s.file != "-" {
		f, err := os.Open(s.file)
		if err != nil {
			return fault.Wrap(fault.Invalid, err, "read the file")
		}
		defer f.Close()
		from = f
	}
	h, ops, err := readState(from)
	if err != nil {
		return err
	}
	if s.cluster != "" && s.cluster != h.Cluster {
		return fault.New(fault.Conflict, "the file is of cluster %s, not of %s", h.Cluster, s.cluster)
	}
	back, st, err := s.open(ctx, h.Cluster)
	if err != nil {
		return err
	}
	defer back.Close()
	if err := fillEmpty(ctx, back, st, ops); err != nil {
		return err
	}
	fmt.Fprintf(c.Err, "%d records of cluster %s are in %s now; the lease authority was not touched: go on with the same one\n", len(ops), h.Cluster, back.Name())
	return nil
}

// fillEmpty leads, which a live leader refuses, makes sure that nothing is there, and writes the framework's record last, so that an
// import that was interrupted is never taken for a whole state.
func fillEmpty(ctx context.Context, back store.Backend, st *store.Store, ops []store.Op) error {
	if err := leadNamed(ctx, back, st); err != nil {
		return err
	}
	err := back.Load(ctx, st.Cluster(), func(key string, _ []byte) error {
		return fault.New(fault.Exists, "%s is not empty (it has %s): import only fills an empty store", back.Name(), key)
	})
	if err != nil {
		return err
	}
	framework, err := putRecords(ctx, st, ops)
	if err != nil {
		return err
	}
	var end store.Batch
	end.Add(framework)
	return st.Commit(ctx, &end)
}

// leadNamed leads a store, and makes sure that it is for the cluster: of processes that begin on an empty one each would name it.
func leadNamed(ctx context.Context, back store.Backend, st *store.Store) error {
	if shared, ok := back.(*registers.Backend); ok {
		name, err := shared.Cluster(ctx, st.Cluster())
		if err == nil && name != st.Cluster() {
			err = fault.New(fault.Conflict, "%s belongs to cluster %s", back.Name(), name)
		}
		if err != nil {
			return err
		}
	}
	return leadIdle(ctx, st)
}

// leadIdle leads a store that nobody uses. It waits for as long as a leader that was killed is taken for alive.
func leadIdle(ctx context.Context, st *store.Store) error {
	for end := time.Now().Add(12 * time.Second); ; {
		err := st.Lead(ctx)
		if err == nil || !errors.Is(err, store.ErrNotLeader) || time.Now().After(end) {
			return fault.Op(err, "the store is in use: stop every framework process first")
		}
		select {
		case <-ctx.Done():
			return fault.Op(err, "the store is in use: stop every framework process first")
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// putRecords writes all of ops but the framework's own record, which it gives back: the state counts as whole with that one only.
func putRecords(ctx context.Context, st *store.Store, ops []store.Op) (framework []store.Op, err error) {
	var batch store.Batch
	for _, op := range ops {
		if op.Key == store.FrameworkKey(st.Cluster()) {
			framework = append(framework, op)
			continue
		}
		if !batch.Room([]store.Op{op}, st.Limits()) {
			if err := st.Commit(ctx, &batch); err != nil {
				return nil, err
			}
			batch.Reset()
		}
		batch.Add([]store.Op{op})
	}
	return framework, st.Commit(ctx, &batch)
}

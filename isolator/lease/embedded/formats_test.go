package embedded

import (
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/holdfast-io/holdfast/isolator/lease"
)

// The registers of every earlier version, as they were while three nodes held three volumes, are read and gone on with.
func TestRegistersOfEarlierVersions(t *testing.T) {
	files, err := filepath.Glob("testdata/*/registers.db.gz")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		z, err := gzip.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(z)
		at := filepath.Join(t.TempDir(), "registers.db")
		if err == nil {
			err = os.WriteFile(at, raw, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		s, err := Open(at)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		a := lease.New(s.Registers(), lease.Options{})
		root, err := a.Root(t.Context())
		if err != nil || root.Generation != 1 || root.Cluster == "" || root.Sealed {
			t.Errorf("%s: %+v %v", name, root, err)
		}
		nodes, err := a.Nodes(t.Context())
		if err != nil || len(nodes) != 3 {
			t.Fatal(err, len(nodes))
		}
		byUID := map[string]lease.NodeVersion{}
		for _, n := range nodes {
			byUID[n.UID] = n
			if !n.Alive || n.Generation != 1 || n.Seq == 0 || n.Timing.F == 0 || n.Grade == "" || n.AgentID == "" || len(n.Drivers) != 1 || n.Drivers[0].Scope != "cluster" {
				t.Errorf("%+v", n)
			}
		}
		claims, err := a.Claims(t.Context())
		held := 0
		for _, c := range claims {
			if c.State != lease.Held {
				continue
			}
			held++
			n := byUID[c.Node]
			if c.Epoch != 1 || c.NodeGeneration != n.Generation || c.Policy.Mode != lease.PolicyLease || c.Nonce == "" || c.Owner == "" {
				t.Errorf("%+v", c)
			}
			// The transitions that every one of them needs some day: asked back, and given back by its node.
			if _, err := a.Revoke(t.Context(), c.VolumeUID, c.Epoch); err != nil {
				t.Error(err)
			}
			if out, err := a.Release(t.Context(), c.VolumeUID, c.Epoch, c.Node, c.NodeGeneration, c.Nonce); err != nil || out.State != lease.Free {
				t.Error(out, err)
			}
		}
		if err != nil || held != 3 {
			t.Errorf("%s: %d claims held, %v", name, held, err)
		}
		for _, n := range nodes { // a renewal by the program that was upgraded
			next := n.Node
			next.Seq++
			if _, err := a.PutNode(t.Context(), next, n.Version); err != nil {
				t.Error(err)
			}
		}
	}
}

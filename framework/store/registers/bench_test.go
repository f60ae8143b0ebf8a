package registers

import (
	"bytes"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/holdfast-io/holdfast/framework/store"
	"github.com/holdfast-io/holdfast/framework/store/bolt"
	"github.com/holdfast-io/holdfast/framework/store/storetest"
	"github.com/holdfast-io/holdfast/internal/servertest"
	"github.com/holdfast-io/holdfast/isolator/lease/embedded"
)

// backends are those there are, by name; without the servers those are left out.
func backends(b *testing.B) map[string]store.Backend {
	file, err := bolt.Open(b.TempDir(), bolt.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { file.Close() })
	server, err := embedded.Open(filepath.Join(b.TempDir(), "registers.db"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { server.Close() })
	out := map[string]store.Backend{"bolt": file, "embedded": open(b, server.Registers(), Options{})}
	if servertest.NeedZooKeeper(b) == "" {
		out["zookeeper"] = open(b, dialAt(b, "zk://"+servertest.StartZooKeeper(b, 1).Servers()[0]+"/bench"), Options{})
	}
	if servertest.NeedConsul(b) == "" {
		out["consul"] = open(b, dialAt(b, "consul://"+servertest.StartConsul(b, "").Addr()+"/bench"), Options{})
	}
	return out
}

// BenchmarkCommit commits batches of records of 1 KiB, one after the other, as the framework's loop does: `commits/s` is what counts.
func BenchmarkCommit(b *testing.B) {
	all := backends(b)
	for _, name := range []string{"bolt", "embedded", "zookeeper", "consul"} {
		back := all[name]
		if back == nil {
			continue
		}
		term, err := back.Lead(ctx, storetest.A, "bench")
		if err != nil {
			b.Fatal(err)
		}
		for _, size := range []int{1, 10, 50} {
			b.Run(fmt.Sprintf("%s/batch-%d", name, size), func(b *testing.B) {
				const rounds = 100
				commits := 0
				for b.Loop() {
					for r := range rounds {
						ops := make([]store.Op, size)
						for i := range ops {
							ops[i] = store.Op{Key: Key(fmt.Sprintf("instances/%02x/a.%d", i, (r*size+i)%1000)), Value: bytes.Repeat([]byte("x"), 1024)}
						}
						if err := back.Commit(ctx, storetest.A, term, ops); err != nil {
							b.Fatal(err)
						}
						commits++
					}
				}
				b.ReportMetric(float64(commits)/b.Elapsed().Seconds(), "commits/s")
				b.ReportMetric(float64(commits*size)/b.Elapsed().Seconds(), "records/s")
			})
		}
	}
}

// BenchmarkTakeover is what a new leader does after the old one resigned: Lead and Load with 10,000 instances of 1 KiB.
func BenchmarkTakeover(b *testing.B) {
	for name, back := range backends(b) {
		term, err := back.Lead(ctx, storetest.A, "bench")
		if err != nil {
			b.Fatal(err)
		}
		ops := make([]store.Op, 10000)
		for i := range ops {
			ops[i] = store.Op{Key: Key(fmt.Sprintf("instances/%02x/a.%d", i%256, i)), Value: bytes.Repeat([]byte("x"), 1024)}
		}
		for rest := ops; len(rest) > 0; rest = rest[50:] { // one large commit is more than the 128 MiB of servertest's ZooKeeper bear
			if err := back.Commit(ctx, storetest.A, term, rest[:50]); err != nil {
				b.Fatal(err)
			}
		}
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := back.Lead(ctx, storetest.A, "bench"); err != nil {
					b.Fatal(err)
				}
				if got := storetest.All(b, back, storetest.A); len(got) != len(ops) {
					b.Fatalf("%d records", len(got))
				}
			}
		})
	}
}

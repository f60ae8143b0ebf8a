package pool_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/driver/pool"
)

// BenchmarkBesideMounted mounts and unmounts a volume beside n that are mounted already: the time should not grow with n. Making a thousand xfs takes
// too long to be done each time; the way to the device is that of ext4.
func BenchmarkBesideMounted(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip(heavy.Root(b))
	}
	for _, k := range []kind{{name: "dir", size: "16m"}, kinds[0], kinds[2]} {
		b.Run(k.name, func(b *testing.B) {
			o := k.fresh(b)
			p, err := pool.Open(o)
			if err != nil {
				b.Fatal(err)
			}
			k.create(b, p, "v")
			mounted := 0
			defer func() {
				for i := range mounted {
					if err := p.Unmount(ctx, fmt.Sprintf("m%d", i), "i"); err != nil {
						b.Error(err)
					}
				}
			}()
			for _, n := range []int{1, 100, 1000} {
				for ; mounted < n; mounted++ {
					name := fmt.Sprintf("m%d", mounted)
					k.create(b, p, name)
					if _, err := p.Mount(ctx, driver.MountSpec{Name: name, ID: "i"}); err != nil {
						b.Fatalf("mount %d of %d: %v", mounted, n, err)
					}
				}
				b.Run(fmt.Sprint(n), func(b *testing.B) {
					var up, down time.Duration
					for b.Loop() {
						at := time.Now()
						if _, err := p.Mount(ctx, driver.MountSpec{Name: "v", ID: "i"}); err != nil {
							b.Fatal(err)
						}
						up += time.Since(at)
						at = time.Now()
						if err := p.Unmount(ctx, "v", "i"); err != nil {
							b.Fatal(err)
						}
						down += time.Since(at)
					}
					b.ReportMetric(float64(up.Microseconds())/1000/float64(b.N), "ms/mount")
					b.ReportMetric(float64(down.Microseconds())/1000/float64(b.N), "ms/unmount")
				})
			}
		})
	}
}

// BenchmarkPowers times what makes no copy of the content: a snapshot and a clone of a volume with 64 MiB in it, its growth mounted and not, and a look at how full it is. "growth
// while mounted" of ext4 is the wish alone where the kernel does not grow it.
func BenchmarkPowers(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip(heavy.Root(b))
	}
	for _, k := range []kind{kinds[2], kinds[3], kinds[4]} {
		b.Run(k.name, func(b *testing.B) {
			o := k.fresh(b)
			p, err := pool.Open(o)
			if err != nil {
				b.Fatal(err)
			}
			size := volume.Bytes(400 << 20)
			uid := uuid.NewString()
			if _, err := p.Create(ctx, driver.Spec{Name: "v", UID: uid, Size: size}); err != nil {
				b.Fatal(err)
			}
			path, err := p.Mount(ctx, driver.MountSpec{Name: "v", UID: uid, ID: "i"})
			if err != nil {
				b.Fatal(err)
			}
			defer func() {
				if err := p.Unmount(ctx, "v", "i"); err != nil {
					b.Error(err)
				}
			}()
			if err := os.WriteFile(filepath.Join(path, "f"), make([]byte, 64<<20), 0o644); err != nil {
				b.Fatal(err)
			}
			sum := map[string]time.Duration{}
			timed := func(what string, f func() error) {
				at := time.Now()
				if err := f(); err != nil {
					b.Fatalf("%s: %v", what, err)
				}
				sum[what] += time.Since(at)
			}
			for n := 0; b.Loop(); n++ {
				s, c := fmt.Sprintf("s%d", n), fmt.Sprintf("c%d", n)
				timed("snapshot", func() error { _, err := p.Snapshot(ctx, "v", uid, s); return err })
				timed("clone", func() error {
					_, err := p.Create(ctx, driver.Spec{Name: c, UID: uuid.NewString(), Source: &driver.Source{Volume: "v", Snapshot: s}})
					return err
				})
				timed("peek", func() error { _, err := p.MountSnapshot(ctx, "v", s, "i"); return err })
				timed("unpeek", func() error { return p.UnmountSnapshot(ctx, "v", s, "i") })
				timed("usage", func() error { _, err := p.Usage(ctx, "v"); return err })
				size += 1 << 20
				timed("grow-mounted", func() error { _, err := p.Grow(ctx, "v", uid, size); return err })
				timed("grow-idle", func() error { _, err := p.Grow(ctx, c, "", size+1<<20); return err })
				timed("remove-snapshot", func() error { return p.RemoveSnapshot(ctx, "v", s) })
				if err := p.Remove(ctx, c, ""); err != nil {
					b.Fatal(err)
				}
			}
			for what, d := range sum {
				b.ReportMetric(float64(d.Microseconds())/1000/float64(b.N), "ms/"+what)
			}
		})
	}
}

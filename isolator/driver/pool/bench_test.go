package pool_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/heavy"
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

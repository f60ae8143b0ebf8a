package registers

import (
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/holdfast-io/holdfast/framework/store"
	"github.com/holdfast-io/holdfast/framework/store/storetest"
	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/internal/servertest"
	"github.com/holdfast-io/holdfast/isolator/lease"
	"github.com/holdfast-io/holdfast/isolator/lease/dial"
	"github.com/holdfast-io/holdfast/isolator/lease/embedded"
	"github.com/holdfast-io/holdfast/isolator/lease/leasetest"
)

// over gives a Factory whose back ends share the registers that r opens.
func over(r func(t testing.TB) lease.Registers) storetest.Factory {
	return storetest.Factory{Many: true, Open: func(t testing.TB) store.Backend { return open(t, r(t), Options{}) }}
}

func open(t testing.TB, r lease.Registers, o Options) *Backend {
	t.Helper()
	if o.Name == "" {
		o.Name = "registers under test"
	}
	b, err := Open(r, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func TestSuiteInMemory(t *testing.T) {
	storetest.Run(t, func(testing.TB) storetest.Factory {
		m := leasetest.NewMemory()
		return over(func(testing.TB) lease.Registers { return m })
	})
}

func TestSuiteEmbedded(t *testing.T) {
	storetest.Run(t, func(t testing.TB) storetest.Factory {
		s, err := embedded.Open(filepath.Join(t.TempDir(), "registers.db"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return over(func(testing.TB) lease.Registers { return s.Registers() })
	})
}

var roots atomic.Int64

// dialed opens an address below which every call of fresh has a path of its own.
func dialed(address string) func(testing.TB) storetest.Factory {
	return func(testing.TB) storetest.Factory {
		at := fmt.Sprintf("%s/t%d", address, roots.Add(1))
		return over(func(t testing.TB) lease.Registers { return dialAt(t, at) })
	}
}

func dialAt(t testing.TB, address string) lease.Registers {
	t.Helper()
	r, err := dial.Open(address, dial.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestHeavySuiteZooKeeper(t *testing.T) {
	heavy.Require(t, servertest.NeedZooKeeper)
	storetest.Run(t, dialed("zk://"+servertest.StartZooKeeper(t, 1).Servers()[0]+"/store"))
}

func TestHeavySuiteConsul(t *testing.T) {
	heavy.Require(t, servertest.NeedConsul)
	storetest.Run(t, dialed("consul://"+servertest.StartConsul(t, "").Addr()+"/store"))
}

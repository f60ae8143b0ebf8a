package servertest

import (
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/heavy"
)

func TestHeavyZooKeeperElectsAgain(t *testing.T) {
	heavy.Require(t, NeedZooKeeper)
	z := StartZooKeeper(t, 3)
	old := z.Leader()
	if old < 0 {
		t.Fatal("no leader")
	}
	z.Kill(old)
	deadline := time.Now().Add(20 * time.Second)
	for z.Leader() < 0 {
		if time.Now().After(deadline) {
			t.Fatal("no new leader")
		}
		time.Sleep(50 * time.Millisecond)
	}
	z.Start(old)
	z.Await(old)
}

func TestHeavyConsulKeepsItsData(t *testing.T) {
	heavy.Require(t, NeedConsul)
	c := StartConsul(t, "")
	c.Kill()
	c.Start()
}

package framework

import (
	"context"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// TestUnreadableHoldFreezes: a cluster that may be frozen is, until a person thaws it; that replaces the record.
func TestUnreadableHoldFreezes(t *testing.T) {
	dir := t.TempDir()
	seed(t, dir, []state.Write{app("/a", 0), {Kind: state.KindHold, Value: &state.Hold{Rev: 1}}})
	damage(t, dir, "meta/hold")
	ctx := context.Background()
	why := func(b *bench) (text string) {
		b.View(func(s *state.State) { text = s.Hold.Why().Text })
		return text
	}
	b := setup(t, dir, scheduler.Step)
	b.j.await(t, `master runs with "fw"`)
	if text := why(b); !strings.Contains(text, "meta/hold cannot be read") {
		t.Errorf("the cluster goes on: %q", text)
	}
	reply, err := b.Do(ctx, scheduler.ScaleApp{App: "/a", Instances: 1})
	if err == nil {
		err = reply.Err
	}
	if !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "cannot be read") {
		t.Errorf("scaled while frozen: %v", err)
	}
	b.stop()
	if got := readAll(t, dir)["meta/hold"]; !strings.HasPrefix(got, "damaged") {
		t.Errorf("the record was changed by a start: %q", got)
	}

	b = setup(t, dir, scheduler.Step)
	b.j.await(t, `master runs with "fw"`)
	if reply, err := b.Do(ctx, scheduler.Thaw{By: "ann"}); err != nil || reply.Err != nil {
		t.Fatal(err, reply.Err)
	}
	if text := why(b); text != "" {
		t.Errorf("after the thaw: %q", text)
	}
	b.stop()
	if got := readAll(t, dir)["meta/hold"]; strings.HasPrefix(got, "damaged") {
		t.Errorf("the thaw did not replace the record: %q", got)
	}
	b = setup(t, dir, scheduler.Step)
	b.j.await(t, `master runs with "fw"`)
	if text := why(b); text != "" {
		t.Errorf("after another start: %q", text)
	}
	b.stop()
}

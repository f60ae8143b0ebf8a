// Package peers shows the instances of apps to those who wait for a change of them, and to many at a time: what is shown is made once per change,
// whoever reads it, and nobody who waits holds anything of the framework.
package peers

import (
	"context"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/framework"
	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/framework/api/show"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// settle is how long a change waits for others to be shown with it.
const settle = 10 * time.Millisecond

// Sheet is what is shown of an app. It is never changed.
type Sheet struct {
	Peers *client.Peers
	JSON  []byte
}

// Core is what a Board needs of the framework.
type Core interface {
	View(func(*state.State))
	Events(context.Context) <-chan framework.Notice
}

// Board keeps the sheets that somebody waits at. It listens to the framework only while anybody does. It is safe for concurrent use.
type Board struct {
	core Core

	mu    sync.Mutex
	pages map[state.AppID]*page
	stop  context.CancelFunc // of the listener; nil while nobody waits

	looking sync.Mutex // looks are put down in the order in which they were made
}

type page struct {
	readers int
	sheet   *Sheet        // nil: there is no such app
	changed chan struct{} // closed when sheet is another
	filled  chan struct{} // closed when it was looked at for the first time
}

// New makes a board.
func New(core Core) *Board { return &Board{core: core, pages: map[state.AppID]*page{}} }

// Look gives the sheet of an app as it is now; nil when there is no such app.
func (b *Board) Look(app state.AppID) *Sheet {
	var p *client.Peers
	b.core.View(func(s *state.State) {
		if a := s.Apps[app]; a != nil {
			p = show.Peers(s, a)
		}
	})
	if p == nil {
		return nil
	}
	return &Sheet{JSON: show.IndexPeers(p), Peers: p}
}

// Wait gives the sheet of an app once it is not the one of the index, or when ctx ends; nil when there is no such app.
func (b *Board) Wait(ctx context.Context, app state.AppID, index string) *Sheet {
	p := b.enter(app)
	defer b.leave(app)
	for {
		b.mu.Lock()
		sheet, changed := p.sheet, p.changed
		b.mu.Unlock()
		if sheet == nil || sheet.Peers.Index != index {
			return sheet
		}
		select {
		case <-ctx.Done():
			return b.Look(app)
		case <-changed:
		}
	}
}

// enter adds a reader to an app's page. Who makes the page fills it in; changes from then on are the listener's to bring.
func (b *Board) enter(app state.AppID) *page {
	b.mu.Lock()
	if b.stop == nil {
		ctx, cancel := context.WithCancel(context.Background())
		b.stop = cancel
		go b.listen(ctx, b.core.Events(ctx))
	}
	p, made := b.pages[app], false
	if p == nil {
		p, made = &page{changed: make(chan struct{}), filled: make(chan struct{})}, true
		b.pages[app] = p
	}
	p.readers++
	b.mu.Unlock()
	if made {
		b.refresh(map[state.AppID]bool{app: true}, false)
		close(p.filled)
	}
	<-p.filled
	return p
}

func (b *Board) leave(app state.AppID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.pages[app]
	if p.readers--; p.readers == 0 {
		delete(b.pages, app)
	}
	if len(b.pages) == 0 && b.stop != nil {
		b.stop()
		b.stop = nil
	}
}

// listen brings pages up to date after each change of their apps, until ctx ends.
func (b *Board) listen(ctx context.Context, notices <-chan framework.Notice) {
	dirty := map[state.AppID]bool{}
	due := time.NewTimer(0)
	defer due.Stop()
	all := true // what was changed between the first look and the first notice
	for {
		select {
		case <-ctx.Done():
			return
		case n, ok := <-notices:
			if !ok { // too slow, or the framework ends
				if !pause(ctx, 100*time.Millisecond) {
					return
				}
				notices, all = b.core.Events(ctx), true
				due.Reset(0)
				continue
			}
			app := appOf(n)
			if n.Type == string(state.KindSession) {
				all = true // it may have been loaded anew
			} else if app == "" || dirty[app] {
				continue
			}
			if len(dirty) == 0 {
				due.Reset(settle)
			}
			dirty[app] = true
		case <-due.C:
			b.refresh(dirty, all)
			clear(dirty)
			all = false
		}
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

func appOf(n framework.Notice) state.AppID {
	switch {
	case n.Instance != nil:
		return n.Instance.App
	case n.Type == string(state.KindApp):
		return state.AppID(n.ID)
	}
	return ""
}

// refresh makes the sheets of some apps, or all, anew and wakes whoever waits for a change.
func (b *Board) refresh(dirty map[state.AppID]bool, all bool) {
	b.mu.Lock()
	var apps []state.AppID
	for app := range b.pages {
		if all || dirty[app] {
			apps = append(apps, app)
		}
	}
	b.mu.Unlock()
	for _, app := range apps {
		b.refreshOne(app)
	}
}

func (b *Board) refreshOne(app state.AppID) {
	b.looking.Lock()
	defer b.looking.Unlock()
	sheet := b.Look(app)
	b.mu.Lock()
	defer b.mu.Unlock()
	if p := b.pages[app]; p != nil && !same(p.sheet, sheet) {
		p.sheet = sheet
		close(p.changed)
		p.changed = make(chan struct{})
	}
}

func same(a, b *Sheet) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Peers.Index == b.Peers.Index
}

package dockerplugin

import (
	"encoding/json"
	"maps"
	"net/url"
	"os"
	"path/filepath"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
)

// ledger keeps the options with which Docker had volumes made, so that the same Create once more (a lost answer, a restarted Docker) can be told
// from another wish for the same name. It only ever makes Create refuse or agree: nothing is mounted or removed by its word.
type ledger struct{ dir string }

func (l ledger) file(ref volume.Ref) string {
	return filepath.Join(l.dir, url.PathEscape(ref.Driver)+"@"+ref.Name+".json")
}

// same tells whether a volume was asked for with these options, if that is known.
func (l ledger) same(ref volume.Ref, options map[string]string) (same, known bool) {
	raw, err := os.ReadFile(l.file(ref))
	if err != nil {
		return false, false
	}
	var kept map[string]string
	if json.Unmarshal(raw, &kept) != nil {
		return false, false // torn by a crash: as if it were not there
	}
	return maps.Equal(kept, options), true
}

func (l ledger) keep(ref volume.Ref, options map[string]string) error {
	if options == nil {
		options = map[string]string{}
	}
	raw, err := json.Marshal(options)
	if err == nil {
		err = os.MkdirAll(l.dir, 0o700)
	}
	name := l.file(ref)
	if err == nil {
		err = os.WriteFile(name+".new", raw, 0o600)
	}
	if err == nil {
		err = os.Rename(name+".new", name)
	}
	return fault.Wrap(fault.Unavailable, err, "keep the options of volume %s", ref)
}

func (l ledger) forget(ref volume.Ref) { _ = os.Remove(l.file(ref)) }

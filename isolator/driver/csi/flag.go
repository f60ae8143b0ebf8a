package csi

import (
	"path/filepath"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// ParseFlag reads one --csi flag, NAME=unix:///path.sock[,option=value…], for a node whose own directory is dir. The options are controller=unix:///path.sock,
// names=DIR, ids=name, scope=cluster|zone|node, secrets=DIR, freeze=yes, fs=TYPE and timeout=DURATION. Mounts, Node and Log are left to the caller.
func ParseFlag(flag, dir string) (Options, error) {
	name, rest, ok := strings.Cut(flag, "=")
	if !ok || name == "" {
		return Options{}, fault.New(fault.Invalid, "--csi %q is not NAME=unix:///path.sock", flag)
	}
	name = "csi/" + strings.TrimPrefix(name, "csi/")
	parts := strings.Split(rest, ",")
	o := Options{Name: name, Endpoint: parts[0], Dir: filepath.Join(dir, filepath.FromSlash(name))}
	for _, p := range parts[1:] {
		k, v, _ := strings.Cut(p, "=")
		switch {
		case v == "":
			return o, fault.New(fault.Invalid, "--csi %s: option %q has no value", name, p)
		case k == "controller":
			o.Controller = v
		case k == "names":
			o.Names = v
		case k == "ids" && v == "name":
			o.IDsAreNames = true
		case k == "scope":
			o.Scope = v
		case k == "secrets":
			o.Secrets = v
		case k == "freeze" && v == "yes":
			o.Freeze = true
		case k == "fs":
			o.FSType = v
		case k == "timeout":
			limit, err := time.ParseDuration(v)
			if err != nil || limit <= 0 {
				return o, fault.New(fault.Invalid, "--csi %s: timeout %q is not a duration such as 60s", name, v)
			}
			o.CallLimit = limit
		default:
			return o, fault.New(fault.Invalid, "--csi %s: option %q is none of controller=unix:///path.sock, names=DIR, ids=name, scope=cluster|zone|node, secrets=DIR, freeze=yes, fs=TYPE and timeout=DURATION", name, p)
		}
	}
	return o, nil
}

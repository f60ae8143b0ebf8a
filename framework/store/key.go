package store

import (
	"crypto/sha256"
	"encoding/hex"
	"net/url"
	"strings"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Prefix is what every key of a cluster begins with.
func Prefix(cluster string) string { return "/holdfast/" + cluster + "/v1/" }

// LeaderKey is the record that holds the term; back ends write it, nobody else. Should the layout of keys ever change, this record stays
// where it is and gets a higher version: an older program then refuses to lead instead of believing that the cluster is new.
func LeaderKey(cluster string) string { return Prefix(cluster) + "meta/leader" }

// CheckKey says whether key is one that a Store may write in cluster: below its prefix, not the leader record, no empty or
// dotted segment, printable ASCII, at most 1,024 bytes.
func CheckKey(cluster, key string) error {
	rest, ok := strings.CutPrefix(key, Prefix(cluster))
	if !ok || key == LeaderKey(cluster) || len(key) > 1024 {
		return fault.New(fault.Invalid, "key %.200q is not a record of cluster %s", key, cluster)
	}
	for _, part := range strings.Split(rest, "/") {
		if part == "" || part == "." || part == ".." || strings.ContainsFunc(part, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return fault.New(fault.Invalid, "key %.200q has a segment that cannot be stored", key)
		}
	}
	return nil
}

// CheckCluster says whether a cluster name may be used in keys: letters, digits and '-', at most 64 characters (a UUID, normally).
func CheckCluster(cluster string) error {
	bad := func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-')
	}
	if cluster == "" || len(cluster) > 64 || strings.ContainsFunc(cluster, bad) {
		return fault.New(fault.Invalid, "cluster %.80q must be 1 to 64 letters, digits and '-' (a UUID)", cluster)
	}
	return nil
}

// keyOf gives the key below the prefix of a record.
func keyOf(kind state.Kind, id string) (string, error) {
	switch kind {
	case state.KindFramework:
		return "meta/framework", nil
	case state.KindApp:
		return "apps/" + escape(strings.TrimPrefix(id, "/")), nil
	case state.KindDef:
		app, version, ok := strings.Cut(id, " ")
		if !ok || app == "" || version == "" {
			return "", fault.New(fault.Invalid, "definition id %q is not an app id and a version", id)
		}
		return "defs/" + escape(strings.TrimPrefix(app, "/")) + "/" + escape(version), nil
	case state.KindInstance:
		return "instances/" + shard(id) + "/" + escape(id), nil
	case state.KindVolume:
		return "volumes/" + shard(id) + "/" + escape(id), nil
	case state.KindReserved:
		return "reservations/" + shard(id) + "/" + escape(id), nil
	case state.KindDeployment:
		return "deployments/" + escape(id), nil
	case state.KindClass:
		return "classes/" + escape(id), nil
	case state.KindGroup:
		return "groups/" + escape(id), nil
	case state.KindOperation:
		return "operations/" + escape(id), nil
	case state.KindOrder:
		return "nodes/" + escape(id), nil
	case state.KindHold:
		return "meta/hold", nil
	}
	return "", fault.New(fault.Internal, "records of kind %q are not stored", kind)
}

// escape makes one key segment of an id, reversibly.
func escape(id string) string {
	s := url.PathEscape(id)
	if s == "." || s == ".." {
		return strings.ReplaceAll(s, ".", "%2E")
	}
	return s
}

// shard spreads ids over 256 parents, so that no back end has to list one of 100,000 children.
func shard(id string) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:1])
}

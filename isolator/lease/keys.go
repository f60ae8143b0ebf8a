package lease

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
)

// The prefixes of the registers, for Watch.
const (
	KeyRoot        = "root"
	PrefixNodes    = "nodes/"
	PrefixClaims   = "claims/"
	PrefixRequests = "requests/"
	PrefixNames    = "names/"
)

var idShape = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)

// checkID refuses what could leave its folder of registers.
func checkID(what, id string) error {
	if !idShape.MatchString(id) {
		return fault.New(fault.Invalid, "%s %q must be 1 to 64 letters, digits, '_' or '-'", what, id)
	}
	return nil
}

func shard(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:1])
}

func claimKey(uid string) string { return PrefixClaims + shard(uid) + "/" + uid }

func nodeKey(uid string) string { return PrefixNodes + uid }

func requestPrefix(node string) string { return PrefixRequests + node + "/" }

func requestKey(node, op string) string { return requestPrefix(node) + op }

// nameKey is where the uid of the volume that now has this natural key is found.
func nameKey(r volume.Ref) string {
	sum := sha256.Sum256([]byte(r.Driver + "\x00" + r.Name))
	h := hex.EncodeToString(sum[:])
	return PrefixNames + h[:2] + "/" + h
}

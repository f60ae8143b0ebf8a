package isolator

import (
	"context"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/lease"
)

// takeGrant looks for a grant of the framework's that waits for this node, and mounts under it, as if the caller had named it: Docker hands no
// driver options on. Whoever mounts first takes it, and the hold (L2) admits one only, for this node only; a container that
// comes in its place keeps the right one out, which then fails and is started again, but two never write.
func (m *mounting) takeGrant(ctx context.Context) error {
	claim, err := m.s.auth.ClaimByRef(ctx, m.req.Ref)
	switch {
	case fault.Is(err, fault.NotFound):
		return nil
	case err != nil:
		return fault.Op(err, "mount volume %s", m.req.Ref)
	case claim.State != lease.Granted || claim.Tombstone || claim.Shared:
		return nil
	}
	m.grant = volume.Grant{VolumeUID: claim.VolumeUID, Epoch: claim.Epoch, Nonce: claim.Nonce, Task: claim.Owner, MustExist: true}
	m.given = true
	return nil
}

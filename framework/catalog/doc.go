// Package catalog keeps the services of a Consul catalog as the running instances are.
//
// It is a diff, made again whenever something changes: Desired works out of a State which services there should be; the registrar
// compares them with what it knows Consul to have, and sends the difference in transactions. Nothing is lost when a call is: the next
// comparison finds it. Every so often, and after every failure, what Consul has is read anew, so that edits by hand are repaired too.
//
// Each agent's host has a node entry of Holdfast's own, `holdfast-<cluster>-<host>`, marked as external. Services are not
// put on the entry of a host's Consul agent: such an agent removes within a minute whatever was not registered through itself.
//
// Only entries that are marked as this cluster's are ever changed or removed: nodes by their meta, services by their meta and their id. The
// names that labels give, and how they are made valid, are described in docs/consul.md.
package catalog

package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// A Server says which Redis and how to reach it; package ocsp/cache has its like, field by field, so that one converts to the other. It is one server, a primary that sentinels watch, or a cluster.
type Server struct {
	Addrs   []string // required, host:port: the server; with Master the sentinels; with Cluster some of its nodes
	Master  string   // under which name the sentinels know the primary
	Cluster bool

	Username, Password                 string // of the ACL user, if there is one
	SentinelUsername, SentinelPassword string
	DB                                 int         // not with Cluster
	TLS                                *tls.Config // optional

	Dial func(ctx context.Context, network, address string) (net.Conn, error) // optional: instead of the network's own
}

func (s Server) check() error {
	switch {
	case len(s.Addrs) == 0:
		return errors.New("no Addrs")
	case s.Cluster && s.Master != "":
		return errors.New("either Cluster or Master")
	case s.Cluster && s.DB != 0:
		return errors.New("a cluster has no DB but 0")
	case len(s.Addrs) > 1 && !s.Cluster && s.Master == "":
		return errors.New("several Addrs need Cluster or Master")
	}
	return nil
}

// options returns go-redis' options for a client that keeps few connections and never tries again on its own: who waits
// for an answer has no time for that, and many clients that try again keep a server down that has just come up.
func (s Server) options(connections int, patience time.Duration) *redis.UniversalOptions {
	return &redis.UniversalOptions{
		Addrs: s.Addrs, MasterName: s.Master, IsClusterMode: s.Cluster,
		Username: s.Username, Password: s.Password, SentinelUsername: s.SentinelUsername, SentinelPassword: s.SentinelPassword,
		DB: s.DB, TLSConfig: s.TLS, Dialer: s.Dial,
		MaxRetries: -1, DialerRetries: 1, ContextTimeoutEnabled: true,
		DialTimeout: patience, ReadTimeout: patience, WriteTimeout: patience, PoolTimeout: patience,
		PoolSize: connections, MaxActiveConns: connections, MaxConcurrentDials: 1, PipelinePoolSize: -1,
		DisableIdentity: true,
		// Maintenance notifications are a commercial server's; asking for them costs a round trip on each connection.
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
}

// relearn makes a cluster's client ask where what is. Left to itself it asks once a minute, and when a node sends it
// elsewhere; from a dead primary it would expect an answer until then. It sees to it itself that this is not too often.
func relearn(ctx context.Context, c redis.UniversalClient) {
	if c, ok := c.(*redis.ClusterClient); ok {
		c.ReloadState(ctx)
	}
}

package dns01

import (
	"strings"
	"time"
)

type ChallengeOption func()

func CondOptions(condition bool, options ...ChallengeOption) ChallengeOption { return nil }

func DisableAuthoritativeNssPropagationRequirement() ChallengeOption { return nil }

func DisableRecursiveNSsPropagationRequirement() ChallengeOption { return nil }

func PropagationWait(wait time.Duration, skipCheck bool) ChallengeOption { return nil }

type Options struct{ RecursiveNameservers []string }

type Client struct{}

func NewClient(options *Options) *Client { return &Client{} }

func SetDefaultClient(client *Client) {}

// UnFqdn is what Traefik compares host names with, ACME or not.
func UnFqdn(name string) string { return strings.TrimSuffix(name, ".") }

package http01

import "time"

const PathPrefix = "/.well-known/acme-challenge/"

type ChallengeOption func()

func SetDelay(delay time.Duration) ChallengeOption { return nil }

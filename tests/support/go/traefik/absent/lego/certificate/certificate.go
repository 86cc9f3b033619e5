package certificate

import (
	"context"
	"errors"

	"github.com/go-acme/lego/v5/certcrypto"
)

var errAbsent = errors.New("this build has no ACME")

type Resource struct {
	ID          string
	Domains     []string
	PrivateKey  []byte
	Certificate []byte
}

type ObtainRequest struct {
	Domains          []string
	Bundle           bool
	EmailAddresses   []string
	Profile          string
	PreferredChain   string
	EnableCommonName bool
	KeyType          certcrypto.KeyType
}

type RenewOptions struct {
	Bundle           bool
	EmailAddresses   []string
	Profile          string
	PreferredChain   string
	EnableCommonName bool
}

type Certifier struct{}

func (c *Certifier) Obtain(ctx context.Context, request ObtainRequest) (*Resource, error) {
	return nil, errAbsent
}

func (c *Certifier) Renew(ctx context.Context, resource Resource, options *RenewOptions) (*Resource, error) {
	return nil, errAbsent
}

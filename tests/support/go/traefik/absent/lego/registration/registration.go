package registration

import (
	"context"
	"errors"

	"github.com/go-acme/lego/v5/acme"
)

var errAbsent = errors.New("this build has no ACME")

type RegisterOptions struct{ TermsOfServiceAgreed bool }

type RegisterEABOptions struct {
	TermsOfServiceAgreed bool
	Kid                  string
	HmacEncoded          string
}

type Registrar struct{}

func (r *Registrar) Register(ctx context.Context, options RegisterOptions) (*acme.ExtendedAccount, error) {
	return nil, errAbsent
}

func (r *Registrar) RegisterWithExternalAccountBinding(ctx context.Context, options RegisterEABOptions) (*acme.ExtendedAccount, error) {
	return nil, errAbsent
}

package lego

import (
	"crypto"
	"crypto/x509"
	"errors"
	"net/http"
	"time"

	"github.com/go-acme/lego/v5/acme"
	"github.com/go-acme/lego/v5/certificate"
	"github.com/go-acme/lego/v5/challenge"
	"github.com/go-acme/lego/v5/challenge/dns01"
	"github.com/go-acme/lego/v5/challenge/http01"
	"github.com/go-acme/lego/v5/challenge/tlsalpn01"
	"github.com/go-acme/lego/v5/registration"
)

const DirectoryURLLetsEncrypt = "https://acme-v02.api.letsencrypt.org/directory"

var errAbsent = errors.New("this build has no ACME")

type User interface {
	GetEmail() string
	GetRegistration() *acme.ExtendedAccount
	GetPrivateKey() crypto.Signer
}

type Config struct {
	CADirURL    string
	UserAgent   string
	HTTPClient  *http.Client
	Certificate struct{ Timeout time.Duration }
}

func NewConfig(user User) *Config { return &Config{} }

type Client struct {
	Certificate  *certificate.Certifier
	Challenge    *Challenges
	Registration *registration.Registrar
}

func NewClient(config *Config) (*Client, error) { return nil, errAbsent }

func CreateCertPool(certificates []string, system bool) (*x509.CertPool, error) {
	return nil, errAbsent
}

type Challenges struct{}

func (c *Challenges) SetDNS01Provider(p challenge.Provider, options ...dns01.ChallengeOption) error {
	return errAbsent
}

func (c *Challenges) SetHTTP01Provider(p challenge.Provider, options ...http01.ChallengeOption) error {
	return errAbsent
}

func (c *Challenges) SetTLSALPN01Provider(p challenge.Provider, options ...tlsalpn01.ChallengeOption) error {
	return errAbsent
}

package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// A cosigner verifies the Ed25519 type of https://c2sp.org/tlog-cosignature; sumdb/note knows plain signatures alone.
type cosigner struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

func (c cosigner) Name() string    { return c.name }
func (c cosigner) KeyHash() uint32 { return c.hash }

func (c cosigner) Verify(msg, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	head := fmt.Sprintf("cosignature/v1\ntime %d\n", binary.BigEndian.Uint64(sig))
	return ed25519.Verify(c.key, append([]byte(head), msg...), sig[8:])
}

func newCosigner(vkey string) (cosigner, error) {
	parts := strings.SplitN(strings.TrimSpace(vkey), "+", 3)
	if len(parts) != 3 {
		return cosigner{}, fmt.Errorf("%q is no verifier key", vkey)
	}
	hash, err := strconv.ParseUint(parts[1], 16, 32)
	if err != nil {
		return cosigner{}, err
	}
	key, err := base64.StdEncoding.Strict().DecodeString(parts[2])
	if err != nil || len(key) != 1+ed25519.PublicKeySize || key[0] != 4 {
		return cosigner{}, fmt.Errorf("%q is no witness's key", vkey)
	}
	return cosigner{parts[0], uint32(hash), key[1:]}, nil
}

// A witnessRule is how many of which witnesses must have cosigned.
type witnessRule struct {
	cosigners []note.Verifier
	quorum    int
}

func newWitnessRule(file string, quorum int) (witnessRule, error) {
	if file == "" {
		return witnessRule{}, nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return witnessRule{}, err
	}
	var rule witnessRule
	for line := range strings.Lines(string(data)) {
		one, err := newCosigner(line)
		if err != nil {
			return witnessRule{}, err
		}
		rule.cosigners = append(rule.cosigners, one)
	}
	if rule.quorum = quorum; quorum == 0 {
		rule.quorum = len(rule.cosigners)
	}
	return rule, nil
}

// check opens the witnessed checkpoint, which is a prefix of the log as any earlier one; nil where there is none.
func (r witnessRule) check(signed []byte, vkey string, now checkpoint) ([]checkpoint, error) {
	if signed == nil {
		if r.quorum > 0 {
			return nil, fmt.Errorf("no checkpoint is cosigned, expected %d witnesses", r.quorum)
		}
		return nil, nil
	}
	found, err := opened(vkey, signed)
	if err != nil {
		return nil, fmt.Errorf("the witnessed checkpoint: %w", err)
	}
	if found.size > now.size || (found.size == now.size && !bytes.Equal(found.root, now.root)) {
		return nil, fmt.Errorf("witnesses cosigned %d entries, the log has %d or others", found.size, now.size)
	}
	if r.quorum == 0 {
		return []checkpoint{found}, nil
	}
	cosigned, err := note.Open(signed, note.VerifierList(r.cosigners...))
	if err != nil {
		return nil, fmt.Errorf("the witnessed checkpoint: %w", err)
	}
	if len(cosigned.Sigs) < r.quorum {
		return nil, fmt.Errorf("%d witnesses cosigned, expected %d", len(cosigned.Sigs), r.quorum)
	}
	return []checkpoint{found}, nil
}

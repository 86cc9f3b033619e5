// Command ledger-verifier checks a ledger with other people's code alone: signed notes by golang.org/x/mod/sumdb/note,
// RFC 6962 trees and proofs by transparency-dev/merkle. It was written from serving_image/README.md, "Formats".
//
// Exit status: 0 verified, 1 not as signed, 2 wrong usage.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
)

var (
	ranges = compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}
	hasher = rfc6962.DefaultHasher
)

// A checkpoint is what a signed note of a log says (https://c2sp.org/tlog-checkpoint).
type checkpoint struct {
	origin string
	size   uint64
	root   []byte
}

// opened checks the signature by vkey and reads the text.
func opened(vkey string, signed []byte) (checkpoint, error) {
	verifier, err := note.NewVerifier(strings.TrimSpace(vkey))
	if err != nil {
		return checkpoint{}, err
	}
	found, err := note.Open(signed, note.VerifierList(verifier))
	if err != nil {
		return checkpoint{}, err
	}
	lines := strings.Split(found.Text, "\n")
	if len(lines) < 4 || lines[0] != verifier.Name() {
		return checkpoint{}, fmt.Errorf("the checkpoint is of log %q, expected %q", lines[0], verifier.Name())
	}
	size, err := strconv.ParseUint(lines[1], 10, 64)
	if err != nil || strconv.FormatUint(size, 10) != lines[1] {
		return checkpoint{}, fmt.Errorf("size %q is no decimal number", lines[1])
	}
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(root) != sha256.Size {
		return checkpoint{}, fmt.Errorf("root %q is no SHA-256", lines[2])
	}
	return checkpoint{lines[0], size, root}, nil
}

// asWritten refuses a key that means the same and isn't written as keys are: it was changed.
func asWritten(vkey string) error {
	text := strings.TrimSuffix(vkey, "\n")
	parts := strings.SplitN(text, "+", 3)
	if len(parts) != 3 || parts[1] != strings.ToLower(parts[1]) || strings.ContainsAny(text, " \t\r\n\v\f") {
		return fmt.Errorf("vkey %q isn't written as keys are", vkey)
	}
	return nil
}

// A tree is recomputed leaf by leaf; roots are kept at the sizes of earlier checkpoints.
type tree struct {
	whole *compact.Range
	asked map[uint64][]byte
	visit compact.VisitFn
}

func newTree(earlier []checkpoint, visit compact.VisitFn) *tree {
	asked := map[uint64][]byte{}
	for _, one := range earlier {
		asked[one.size] = one.root
	}
	return &tree{ranges.NewEmptyRange(0), asked, visit}
}

func (t *tree) add(entry []byte) error {
	if err := t.whole.Append(hasher.HashLeaf(entry), t.visit); err != nil {
		return err
	}
	if wanted, ok := t.asked[t.whole.End()]; ok {
		return t.is(wanted, "an earlier checkpoint")
	}
	return nil
}

func (t *tree) is(root []byte, whose string) error {
	found, err := t.whole.GetRootHash(nil)
	if err != nil {
		return err
	}
	if t.whole.End() == 0 {
		found = hasher.EmptyRoot()
	}
	if !bytes.Equal(found, root) {
		return fmt.Errorf("the first %d entries have root %x, %s signed %x", t.whole.End(), found, whose, root)
	}
	return nil
}

func decoded(hashes []string) ([][]byte, error) {
	found := make([][]byte, 0, len(hashes))
	for _, text := range hashes {
		hash, err := hex.DecodeString(text)
		if err != nil || len(hash) != sha256.Size || hex.EncodeToString(hash) != text {
			return nil, fmt.Errorf("a proof holds %q, which is no hash", text)
		}
		found = append(found, hash)
	}
	return found, nil
}

func included(entry []byte, index uint64, hashes []string, now checkpoint) error {
	path, err := decoded(hashes)
	if err != nil {
		return err
	}
	return proof.VerifyInclusion(hasher, index, now.size, hasher.HashLeaf(entry), path, now.root)
}

func consistent(old, now checkpoint, hashes []string) error {
	path, err := decoded(hashes)
	if err != nil {
		return err
	}
	return proof.VerifyConsistency(hasher, old.size, now.size, path, old.root, now.root)
}

func main() {
	vkey := flag.String("vkey", "", "file with the verifier key to trust (default: the source's own)")
	earlier := flag.String("checkpoint", "", "file with an earlier checkpoint, kept elsewhere")
	witnesses := flag.String("witness-key", "", "file with witnesses' verifier keys, one a line: they must have cosigned")
	quorum := flag.Int("quorum", 0, "how many of them (default: all)")
	token := flag.String("token", "", "the reader's bearer token, for a URL")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: ledger-verifier [-vkey FILE] [-checkpoint FILE] [-witness-key FILE [-quorum N]] [-token TOKEN] BUNDLE.tar | RECEIPT | URL")
		os.Exit(2)
	}
	rule, err := newWitnessRule(*witnesses, *quorum)
	var now checkpoint
	if err == nil {
		now, err = verified(flag.Arg(0), *vkey, *earlier, *token, rule)
	}
	if err != nil {
		fmt.Println("not verified:", err)
		os.Exit(1)
	}
	fmt.Printf("verified %s %d %x\n", now.origin, now.size, now.root)
}

func verified(source, vkeyFile, earlierFile, token string, rule witnessRule) (checkpoint, error) {
	var key, old []byte
	var err error
	if vkeyFile != "" {
		if key, err = os.ReadFile(vkeyFile); err != nil {
			return checkpoint{}, err
		}
	}
	if earlierFile != "" {
		if old, err = os.ReadFile(earlierFile); err != nil {
			return checkpoint{}, err
		}
	}
	if strings.Contains(source, "://") {
		return served(strings.TrimSuffix(source, "/"), token, string(key), old, rule)
	}
	data, err := os.ReadFile(source)
	if err == nil && bytes.HasPrefix(data, []byte(receiptHead)) {
		return received(data, string(key), rule)
	}
	return bundled(source, string(key), old, rule)
}

// earlierThan opens a checkpoint kept elsewhere; a log that has fewer entries was cut.
func earlierThan(now checkpoint, vkey string, signed []byte) ([]checkpoint, error) {
	if signed == nil {
		return nil, nil
	}
	old, err := opened(vkey, signed)
	if err != nil {
		return nil, err
	}
	if old.size > now.size {
		return nil, fmt.Errorf("an earlier checkpoint signed %d entries, the log has %d: its tail was cut", old.size, now.size)
	}
	return []checkpoint{old}, nil
}

#!/usr/bin/env bash
# The same authority made by hand with softhsm2-util, pkcs11-tool, openssl and step-ca: what `pki init` is
# compared with. Two tokens, a P-384 root, a P-256 intermediate signed through a CSR, the root's CRL, ca.json,
# the checks that step-ca leaves out, a running CA that answers, and a probe leaf that it signed, verified.
#
# usage: by_hand.sh FOLDER PORT STEP_CA MODULE
set -euo pipefail
folder=$1 port=$2 step_ca=$3 module=$4
mkdir -p "$folder/tokens" "$folder/db"
cd "$folder"
export SOFTHSM2_CONF="$folder/softhsm2.conf"
printf 'directories.tokendir = %s/tokens\nobjectstore.backend = file\nlog.level = ERROR\n' "$folder" >softhsm2.conf
umask 077
pin=$(od -An -N12 -tx1 /dev/urandom | tr -d ' \n')
printf '%s\n' "$pin" >pin
umask 022

openssl_conf() {
    cat >openssl.cnf <<EOF
openssl_conf = init
[init]
engines = engines
[engines]
pkcs11 = pkcs11
[pkcs11]
engine_id = pkcs11
MODULE_PATH = $module
PIN = $pin
[req]
distinguished_name = dn
prompt = no
[dn]
CN = By hand Root
[root]
basicConstraints = critical,CA:TRUE,pathlen:1
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[intermediate]
basicConstraints = critical,CA:TRUE,pathlen:0
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[ca]
default_ca = default
[default]
database = index.txt
crlnumber = crlnumber
default_md = sha384
default_crl_days = 180
EOF
    chmod 600 openssl.cnf
}

openssl_conf
export OPENSSL_CONF="$folder/openssl.cnf"
for name in root intermediate; do
    softhsm2-util --init-token --free --label "$name" --pin "$pin" --so-pin "$pin" >/dev/null
done
pkcs11-tool --module "$module" --token-label root --login --pin "$pin" \
    --keypairgen --key-type EC:secp384r1 --label root --id 01 >/dev/null 2>&1
pkcs11-tool --module "$module" --token-label intermediate --login --pin "$pin" \
    --keypairgen --key-type EC:prime256v1 --label intermediate --id 02 >/dev/null 2>&1

openssl req -new -x509 -engine pkcs11 -keyform engine -key 'pkcs11:token=root;object=root' -sha384 \
    -days 3650 -extensions root -out root.crt 2>/dev/null
openssl req -new -engine pkcs11 -keyform engine -key 'pkcs11:token=intermediate;object=intermediate' \
    -subj '/CN=By hand Intermediate' -out intermediate.csr 2>/dev/null
openssl req -in intermediate.csr -verify -noout 2>/dev/null
openssl x509 -req -in intermediate.csr -engine pkcs11 -CAkeyform engine -CAkey 'pkcs11:token=root;object=root' \
    -CA root.crt -days 1825 -extfile openssl.cnf -extensions intermediate -out intermediate.crt 2>/dev/null
: >index.txt
echo 01 >crlnumber
openssl ca -gencrl -engine pkcs11 -keyform engine -keyfile 'pkcs11:token=root;object=root' -cert root.crt \
    -out root.crl 2>/dev/null

unset OPENSSL_CONF
openssl verify -CAfile root.crt intermediate.crt >/dev/null
openssl crl -in root.crl -CAfile root.crt -noout 2>/dev/null

# What step-ca does not check before it serves: that the PIN logs in, and that the key is the certificate's.
head -c 32 /dev/urandom >proof
pkcs11-tool --module "$module" --token-label intermediate --login --pin "$pin" --sign --mechanism ECDSA --label intermediate \
    --signature-format openssl --input-file proof --output-file proof.sig >/dev/null 2>&1
openssl x509 -in intermediate.crt -pubkey -noout >intermediate.pub
openssl pkeyutl -verify -pubin -inkey intermediate.pub -in proof -sigfile proof.sig >/dev/null

# The probe leaf: a JWK provisioner, whose one-time token is signed by openssl.
b64url() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }
openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out canary.pem
point=$(openssl ec -in canary.pem -pubout -outform der 2>/dev/null | tail -c 64 | od -An -v -tx1 | tr -d ' \n')
unhex() { printf '%b' "$(printf '%s' "$1" | sed 's/../\\x&/g')"; }
x=$(unhex "$(printf '%s' "$point" | cut -c1-64)" | b64url)
y=$(unhex "$(printf '%s' "$point" | cut -c65-128)" | b64url)
kid=$(printf '{"crv":"P-256","kty":"EC","x":"%s","y":"%s"}' "$x" "$y" | openssl dgst -sha256 -binary | b64url)

"$step_ca" version >/dev/null
[ -z "$(ss --no-header --listening --tcp --numeric "sport = :$port")" ] # on a taken port step-ca would hang
cat >ca.json <<EOF
{"root": "$folder/root.crt", "crt": "$folder/intermediate.crt", "key": "pkcs11:id=02;object=intermediate",
 "kms": {"type": "pkcs11", "uri": "pkcs11:module-path=$module;token=intermediate;max-sessions=16?pin-source=$folder/pin"},
 "address": "127.0.0.1:$port", "dnsNames": ["localhost", "127.0.0.1"], "logger": {"format": "json"},
 "db": {"type": "badgerv2", "dataSource": "$folder/db"},
 "authority": {"provisioners": [{"type": "ACME", "name": "acme"},
  {"type": "JWK", "name": "canary", "key": {"use": "sig", "kty": "EC", "kid": "$kid", "crv": "P-256", "alg": "ES256", "x": "$x", "y": "$y"}}]}}
EOF
"$step_ca" ca.json >log 2>&1 &
echo $! >pid
until curl --silent --fail --output /dev/null --cacert root.crt "https://127.0.0.1:$port/health"; do
    kill -0 "$(cat pid)" 2>/dev/null || { cat log >&2; exit 1; }
    sleep 0.1
done

openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -keyout leaf.key -subj /CN=canary -out leaf.csr 2>/dev/null
now=$(date +%s)
header=$(printf '{"alg":"ES256","typ":"JWT","kid":"%s"}' "$kid" | b64url)
claims=$(printf '{"iss":"canary","sub":"canary","aud":"https://localhost/1.0/sign","nbf":%s,"exp":%s,"jti":"%s","sans":["canary"]}' \
    "$((now - 30))" "$((now + 300))" "$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')" | b64url)
signature=$(printf '%s.%s' "$header" "$claims" | openssl dgst -sha256 -sign canary.pem | openssl asn1parse -inform der |
    awk -F: '/INTEGER/ { n = $NF; while (length(n) < 64) n = "0" n; printf "%s", substr(n, length(n) - 63) }')
csr=$(awk '{ printf "%s\\n", $0 }' leaf.csr)
printf '{"csr":"%s","ott":"%s.%s.%s"}' "$csr" "$header" "$claims" "$(unhex "$signature" | b64url)" >sign.json
curl --silent --fail --cacert root.crt --data @sign.json "https://127.0.0.1:$port/1.0/sign" >leaf.json
sed 's/.*"crt":"\([^"]*\)".*/\1/; s/\\n/\n/g' leaf.json >leaf.crt
openssl verify -CAfile root.crt -untrusted intermediate.crt leaf.crt >/dev/null
curl --silent --fail --cacert root.crt "https://127.0.0.1:$port/provisioners" >provisioners.json
grep -q '"name":"acme"' provisioners.json
if grep -q Uninitialized provisioners.json; then exit 1; fi

"""The child process that alone loads a PKCS#11 module; hsm/client.py is its other end.

A module may crash, hang, use no locks, or want its own environment: each is a reason for a process of its own.
python-pkcs11 calls C_Initialize without locking, so one worker serves one request at a time.

Requests and answers are JSON with a length in front (4 bytes, big endian), over an inherited socket: standard
output belongs to the module. Keep the imports few: this process starts on every command that asks a token.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

MAX_MESSAGE_BYTES = 1024 * 1024

# Where C_InitToken stands in CK_FUNCTION_LIST (PKCS#11 v2.40 pkcs11f.h), counted from C_Initialize.
# python-pkcs11 does not wrap it.
_INIT_TOKEN_INDEX = 9
_LABEL_BYTES = 32


def send(connection: socket.socket, message: dict[str, Any]) -> None:
    data = json.dumps(message).encode()
    connection.sendall(struct.pack(">I", len(data)) + data)


def receive(connection: socket.socket) -> dict[str, Any] | None:
    """Return the next message, None when the other end closed. Raises ValueError on nonsense."""
    head = _exactly(connection, 4)
    if head is None:
        return None
    (size,) = struct.unpack(">I", head)
    if size > MAX_MESSAGE_BYTES:
        raise ValueError(f"a message of {size} bytes")
    body = _exactly(connection, size)
    message = None if body is None else json.loads(body)
    return message if isinstance(message, dict) else None


def _exactly(connection: socket.socket, size: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < size:
        part = connection.recv(size - len(parts))
        if not part:
            return None
        parts += part
    return bytes(parts)


class Refusal(Exception):
    """Something that is wrong in our own terms; *kind* names an exception of stepca_pki.errors."""

    def __init__(self, kind: str, problem: str, fix: str | None = None) -> None:
        super().__init__(problem)
        self.kind, self.problem, self.fix = kind, problem, fix


class Worker:
    """One module, at most one logged-in session."""

    def __init__(self) -> None:
        self._module = ""
        self._library: Any = None
        self._session: Any = None
        self._signers: dict[tuple[str, str], Any] = {}

    # --- module and tokens

    def load(self, module: str, environment: dict[str, str]) -> None:
        import pkcs11

        os.environ.update(environment)  # putenv(3): the module sees it, and nobody's command line does
        self._module = module
        try:
            self._library = pkcs11.lib(module)
        except (RuntimeError, OSError) as error:  # python-pkcs11's own errors are RuntimeErrors
            if "loading" in str(error):
                problem, fix = "cannot be loaded as a PKCS#11 module", "name a PKCS#11 module; see 'pki hsm modules'"
            else:
                problem, fix = "C_Initialize failed", "check that its configuration and storage are there and readable"
            raise Refusal("ModuleUnusable", f"{module}: {problem}: {_words(error)}", fix) from None

    def reinitialize(self) -> None:
        """C_Finalize and C_Initialize: modules renumber their slots after C_InitToken."""
        self._library.reinitialize()

    def tokens(self) -> list[dict[str, Any]]:
        return [_token_info(slot) for slot in self._library.get_slots(token_present=True)]

    def mechanisms(self, slot: int) -> dict[str, list[int]]:
        found = self._slot(slot)
        answer = {}
        for mechanism in found.get_mechanisms():
            try:
                info = found.get_mechanism_info(mechanism)
            except Exception:  # noqa: S112  # some modules list what they cannot describe
                continue
            answer[getattr(mechanism, "name", str(mechanism))] = [int(info.min_key_length), int(info.max_key_length)]
        return answer

    def init_token(self, slot: int, so_pin: str, label: str) -> None:
        """C_InitToken through the module's function list. Only a token without TOKEN_INITIALIZED is touched."""
        import pkcs11

        if self._slot(slot).get_token().flags & pkcs11.TokenFlag.TOKEN_INITIALIZED:
            raise Refusal("HsmError", f"the token in slot {slot} is initialised already and is not touched")
        padded = label.encode().ljust(_LABEL_BYTES)
        if len(padded) > _LABEL_BYTES:
            raise Refusal("HsmError", f"the label '{label}' is longer than {_LABEL_BYTES} bytes in UTF-8")
        pin = so_pin.encode()
        result = _function(self._module, _INIT_TOKEN_INDEX)(
            ctypes.c_ulong(slot), ctypes.c_char_p(pin), ctypes.c_ulong(len(pin)), ctypes.c_char_p(padded)
        )
        if result != 0:
            raise Refusal("HsmError", f"C_InitToken failed with CKR 0x{result:08x}", "read the module's own log")

    def init_pin(self, slot: int, so_pin: str, pin: str) -> None:
        with self._slot(slot).get_token().open(rw=True, so_pin=so_pin) as session:
            session.init_pin(pin)

    def open(self, slot: int, pin: str) -> dict[str, Any]:
        found = self._slot(slot)
        self._session = found.get_token().open(rw=True, user_pin=pin)
        return _token_info(found)

    def extra_sessions(self, slot: int, count: int) -> int:
        """Open *count* more sessions at once and close them; return how many could be had."""
        opened: list[Any] = []
        try:
            for _ in range(count):
                opened.append(self._slot(slot).get_token().open(rw=True))  # a failure ends it half way
        except Exception as error:
            if _name(error) not in ("SessionCount", "HostMemory", "DeviceMemory"):
                raise
        finally:
            for session in opened:
                session.close()
        return len(opened)

    def _slot(self, number: int) -> Any:
        for slot in self._library.get_slots(token_present=True):
            if slot.slot_id == number:
                return slot
        raise Refusal("TokenNotFound", f"slot {number} has no token any more")

    # --- keys

    def keys(self) -> list[dict[str, Any]]:
        """Every asymmetric key, both halves of one (id, label) in one entry."""
        from pkcs11 import Attribute, ObjectClass

        entries: dict[tuple[str, str], dict[str, Any]] = {}
        for kind in (ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY):
            for found in self._session.get_objects({Attribute.CLASS: kind}):
                identity = (_get(found, Attribute.ID, b"").hex(), _get(found, Attribute.LABEL, ""))
                entry = entries.setdefault(identity, _empty_entry(*identity))
                _describe(entry, found, kind is ObjectClass.PRIVATE_KEY)
        return list(entries.values())

    def generate(self, type: str, bits: int, label: str, id: str, extractable: bool) -> None:
        """C_GenerateKeyPair. The caller has looked that label and id are free."""
        import pkcs11
        from pkcs11 import Attribute, MechanismFlag

        private = {
            Attribute.SENSITIVE: True,
            Attribute.PRIVATE: True,
            Attribute.EXTRACTABLE: extractable,
            **_left_out(pkcs11, ("DECRYPT", "UNWRAP", "DERIVE", "SIGN_RECOVER")),
        }
        public = _left_out(pkcs11, ("ENCRYPT", "WRAP", "VERIFY_RECOVER"))
        names = {
            "store": True,
            "label": label,
            "id": bytes.fromhex(id),
            "capabilities": MechanismFlag.SIGN | MechanismFlag.VERIFY,
        }
        if type.startswith("RSA"):
            self._session.generate_keypair(
                pkcs11.KeyType.RSA, bits, public_template=public, private_template=private, **names
            )
            return
        parameters = self._session.create_domain_parameters(
            pkcs11.KeyType.EC, {Attribute.EC_PARAMS: _curve_parameters(bits)}, local=True
        )
        parameters.generate_keypair(public_template=public, private_template=private, **names)

    def sign(self, label: str, id: str, mechanism: str, data: str) -> str:
        from pkcs11 import Mechanism

        key = self._private_key(label, id)
        return bytes(key.sign(bytes.fromhex(data), mechanism=Mechanism[mechanism])).hex()

    def sign_pss(self, label: str, id: str, digest: str, hash: str, salt_bytes: int) -> str:
        from pkcs11 import MGF, Mechanism

        mechanism = {
            "sha256": (Mechanism.SHA256, MGF.SHA256),
            "sha384": (Mechanism.SHA384, MGF.SHA384),
            "sha512": (Mechanism.SHA512, MGF.SHA512),
        }
        parameters = (*mechanism[hash], salt_bytes)
        key = self._private_key(label, id)
        return bytes(
            key.sign(bytes.fromhex(digest), mechanism=Mechanism.RSA_PKCS_PSS, mechanism_param=parameters)
        ).hex()

    def destroy(self, label: str, id: str, private_too: bool) -> int:
        """Destroy the objects of one (id, label); the private half only when asked for by name."""
        from pkcs11 import Attribute, ObjectClass

        self._signers.pop((label, id), None)
        count = 0
        for kind in (ObjectClass.PUBLIC_KEY, *((ObjectClass.PRIVATE_KEY,) if private_too else ())):
            wanted = {Attribute.CLASS: kind, Attribute.LABEL: label, Attribute.ID: bytes.fromhex(id)}
            for found in list(self._session.get_objects(wanted)):
                found.destroy()
                count += 1
        return count

    def remove_half(self, label: str, id: str) -> int:
        """Destroy what a cut-off generation left under one (id, label). A whole private key is never touched."""
        from pkcs11 import Attribute, ObjectClass

        wanted = {Attribute.LABEL: label, Attribute.ID: bytes.fromhex(id)}
        private = list(self._session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY, **wanted}))
        if not all(_is_torn(found) for found in private):
            raise Refusal("KeyExists", f"the private key '{label}' with id {id} is whole, so nothing is removed")
        public = list(self._session.get_objects({Attribute.CLASS: ObjectClass.PUBLIC_KEY, **wanted}))
        for found in [*private, *public]:
            found.destroy()
        return len(private) + len(public)

    def _private_key(self, label: str, key_id: str) -> Any:
        from pkcs11 import Attribute, ObjectClass

        if (label, key_id) not in self._signers:
            wanted = {
                Attribute.CLASS: ObjectClass.PRIVATE_KEY,
                Attribute.LABEL: label,
                Attribute.ID: bytes.fromhex(key_id),
            }
            found = list(self._session.get_objects(wanted))
            if len(found) != 1:
                kind = "TokenAmbiguous" if found else "KeyNotFound"
                raise Refusal(
                    kind, f"the token has {len(found)} private keys '{label}' with id {key_id}, not exactly one"
                )
            self._signers[label, key_id] = found[0]
        return self._signers[label, key_id]


# --- details of python-pkcs11 ------------------------------------------------------------------------


def _token_info(slot: Any) -> dict[str, Any]:
    import pkcs11

    token, flag = slot.get_token(), pkcs11.TokenFlag
    return {
        "slot": slot.slot_id,
        "label": token.label,
        "serial": token.serial.decode(errors="replace").strip(),
        "manufacturer": token.manufacturer_id,
        "model": token.model,
        "initialised": bool(token.flags & flag.TOKEN_INITIALIZED),
        "pin_initialised": bool(token.flags & flag.USER_PIN_INITIALIZED),
        "pin_count_low": bool(token.flags & flag.USER_PIN_COUNT_LOW),
        "pin_final_try": bool(token.flags & flag.USER_PIN_FINAL_TRY),
        "pin_locked": bool(token.flags & flag.USER_PIN_LOCKED),
    }


def _empty_entry(key_id: str, label: str) -> dict[str, Any]:
    return {
        "id": key_id,
        "label": label,
        "type": None,
        "has_private": False,
        "has_public": False,
        "private_count": 0,
        "torn": False,
        "sensitive": None,
        "extractable": None,
        "local": None,
        "spki": None,
    }


def _describe(entry: dict[str, Any], found: Any, private: bool) -> None:
    from pkcs11 import Attribute

    if private:
        entry["has_private"] = True
        entry["private_count"] += 1
        entry["torn"] = entry["torn"] or _is_torn(found)
        for name in ("sensitive", "extractable", "local"):
            entry[name] = _get(found, Attribute[name.upper()], None)
        entry["type"] = entry["type"] or _type_of(found)
        return
    entry["has_public"] = True
    entry["type"] = _type_of(found) or entry["type"]
    spki = _spki(found)
    entry["spki"] = None if spki is None else spki.hex()


def _is_torn(private_key: Any) -> bool:
    """Whether a private key was cut off in its making: without parameters, and not yet marked as made here.

    SoftHSM2 writes label and id first, and parameters, value and CKA_LOCAL together later.
    """
    from pkcs11 import Attribute

    return _type_of(private_key) is None and _get(private_key, Attribute.LOCAL, False) is not True


def _get(found: Any, attribute: Any, default: Any) -> Any:
    try:
        return found[attribute]
    except Exception:  # modules differ in what they refuse; absent is absent
        return default


_CURVES = {256: "secp256r1", 384: "secp384r1", 521: "secp521r1"}


def _type_of(found: Any) -> str | None:
    """Our name of the key's type, None if it is none that we use."""
    from pkcs11 import Attribute, KeyType

    kind = _get(found, Attribute.KEY_TYPE, None)
    if kind is KeyType.RSA:
        modulus = _get(found, Attribute.MODULUS, b"")
        return f"RSA-{int.from_bytes(modulus, 'big').bit_length()}" if modulus else None
    if kind is KeyType.EC:
        parameters = _get(found, Attribute.EC_PARAMS, b"")
        return next((f"P-{bits}" for bits in _CURVES if _curve_parameters(bits) == parameters), None)
    return None


def _curve_parameters(bits: int) -> bytes:
    from pkcs11.util.ec import encode_named_curve_parameters

    return encode_named_curve_parameters(_CURVES[bits])


def _spki(public_key: Any) -> bytes | None:
    """SubjectPublicKeyInfo (DER) of a public key object. asn1crypto, which python-pkcs11 brings, writes it."""
    from pkcs11 import Attribute, KeyType
    from pkcs11.util.ec import encode_ec_public_key
    from pkcs11.util.rsa import encode_rsa_public_key

    try:
        if public_key[Attribute.KEY_TYPE] is KeyType.EC:
            return bytes(encode_ec_public_key(public_key))
        if public_key[Attribute.KEY_TYPE] is KeyType.RSA:
            from asn1crypto.keys import PublicKeyInfo, RSAPublicKey

            parsed = RSAPublicKey.load(encode_rsa_public_key(public_key))
            return bytes(PublicKeyInfo.wrap(parsed, "rsa").dump())
    except Exception:  # a half-made object has no point or modulus
        return None
    return None


def _left_out(pkcs11: Any, names: tuple[str, ...]) -> dict[Any, Any]:
    """Say nothing of these attributes: some modules refuse the library's defaults."""
    from pkcs11.constants import DEFAULT

    return {pkcs11.Attribute[name]: DEFAULT for name in names}


def _function(module: str, index: int) -> Any:
    """Return one entry of the module's function list."""

    class FunctionList(ctypes.Structure):
        _fields_ = [("version", ctypes.c_ubyte * 2), ("functions", ctypes.c_void_p * (index + 1))]

    pointer = ctypes.POINTER(FunctionList)()
    if ctypes.CDLL(module).C_GetFunctionList(ctypes.byref(pointer)) != 0:
        raise Refusal("ModuleUnusable", f"{module}: C_GetFunctionList failed")
    address = pointer.contents.functions[index]
    return ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_ulong, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)(address)


def _name(error: BaseException) -> str:
    return type(error).__name__


def _words(error: BaseException) -> str:
    text = str(error)
    return f"{_name(error)}{f': {text}' if text else ''}"


def serve(connection: socket.socket) -> None:
    """Answer requests until the other end closes."""
    worker = Worker()
    while (request := receive(connection)) is not None:
        operation: Callable[..., Any] = getattr(worker, str(request.pop("operation")))
        try:
            send(connection, {"result": operation(**request)})
        except Refusal as refusal:
            send(connection, {"refusal": refusal.kind, "problem": refusal.problem, "fix": refusal.fix})
        except Exception as error:  # everything becomes an answer; the PIN is in none of them
            send(connection, {"error": _name(error), "problem": _words(error)})


# --- where workers come from ------------------------------------------------------------------------

FORK, END = b"fork", b"end "
_COMMAND = struct.Struct(">4si")
_ANSWER = struct.Struct(">i")
END_SECONDS = 2.0
NO_CHILD = 1


def nurse(control: socket.socket) -> None:
    """Fork a worker for each socket that arrives, until the other end closes.

    Python and python-pkcs11 are loaded once; each worker still is a process that has one module and no other. Two
    commands of fixed size: FORK with a socket is answered with a process id, END with a process id with how it ended
    (subprocess's returncode).
    """
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, _COMMAND.size, 1)
        if len(data) != _COMMAND.size:
            return
        command, number = _COMMAND.unpack(data)
        if command == FORK and descriptors:
            control.sendall(_ANSWER.pack(_fork(control, descriptors[0])))
        else:
            control.sendall(_ANSWER.pack(_end(number)))


def _fork(control: socket.socket, descriptor: int) -> int:
    child = os.fork()
    if child:
        os.close(descriptor)
        return child
    code = 1
    try:
        control.close()
        with socket.socket(fileno=descriptor) as connection:
            serve(connection)
        code = 0
    finally:
        os._exit(code)


def _end(child: int) -> int:
    """Return how *child* ended; one that does not end within END_SECONDS is killed."""
    deadline = time.monotonic() + END_SECONDS
    try:
        while True:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
            time.sleep(0.001)
    except ChildProcessError:
        return NO_CHILD


def ask_nurse(control: socket.socket, command: bytes, number: int = 0, descriptor: int | None = None) -> int:
    """The other end of nurse(). Raises OSError if it is gone."""
    socket.send_fds(control, [_COMMAND.pack(command, number)], [] if descriptor is None else [descriptor])
    answer = _exactly(control, _ANSWER.size)
    if answer is None:
        raise ConnectionResetError("the parent of the PKCS#11 workers is gone")
    return int(_ANSWER.unpack(answer)[0])


def _warm_up() -> None:
    """Import what every worker needs while the other end is still busy with its own imports."""
    import pkcs11
    import pkcs11.util.ec
    import pkcs11.util.rsa

    assert pkcs11  # noqa: S101


if __name__ == "__main__":
    _warm_up()
    with socket.socket(fileno=int(sys.argv[1])) as inherited:
        nurse(inherited)

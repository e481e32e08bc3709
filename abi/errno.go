package abi

import "fmt"

// Errno is an error number of WASI preview 1: what every module of the host interface answers with, natively as -Errno.
type Errno uint16

// The error numbers, as wasi-libc's <errno.h> has them.
const (
	ESUCCESS        Errno = 0
	E2BIG           Errno = 1
	EACCES          Errno = 2
	EADDRINUSE      Errno = 3
	EADDRNOTAVAIL   Errno = 4
	EAFNOSUPPORT    Errno = 5
	EAGAIN          Errno = 6
	EALREADY        Errno = 7
	EBADF           Errno = 8
	EBADMSG         Errno = 9
	EBUSY           Errno = 10
	ECANCELED       Errno = 11
	ECHILD          Errno = 12
	ECONNABORTED    Errno = 13
	ECONNREFUSED    Errno = 14
	ECONNRESET      Errno = 15
	EDEADLK         Errno = 16
	EDESTADDRREQ    Errno = 17
	EDOM            Errno = 18
	EDQUOT          Errno = 19
	EEXIST          Errno = 20
	EFAULT          Errno = 21
	EFBIG           Errno = 22
	EHOSTUNREACH    Errno = 23
	EIDRM           Errno = 24
	EILSEQ          Errno = 25
	EINPROGRESS     Errno = 26
	EINTR           Errno = 27
	EINVAL          Errno = 28
	EIO             Errno = 29
	EISCONN         Errno = 30
	EISDIR          Errno = 31
	ELOOP           Errno = 32
	EMFILE          Errno = 33
	EMLINK          Errno = 34
	EMSGSIZE        Errno = 35
	EMULTIHOP       Errno = 36
	ENAMETOOLONG    Errno = 37
	ENETDOWN        Errno = 38
	ENETRESET       Errno = 39
	ENETUNREACH     Errno = 40
	ENFILE          Errno = 41
	ENOBUFS         Errno = 42
	ENODEV          Errno = 43
	ENOENT          Errno = 44
	ENOEXEC         Errno = 45
	ENOLCK          Errno = 46
	ENOLINK         Errno = 47
	ENOMEM          Errno = 48
	ENOMSG          Errno = 49
	ENOPROTOOPT     Errno = 50
	ENOSPC          Errno = 51
	ENOSYS          Errno = 52
	ENOTCONN        Errno = 53
	ENOTDIR         Errno = 54
	ENOTEMPTY       Errno = 55
	ENOTRECOVERABLE Errno = 56
	ENOTSOCK        Errno = 57
	ENOTSUP         Errno = 58
	ENOTTY          Errno = 59
	ENXIO           Errno = 60
	EOVERFLOW       Errno = 61
	EOWNERDEAD      Errno = 62
	EPERM           Errno = 63
	EPIPE           Errno = 64
	EPROTO          Errno = 65
	EPROTONOSUPPORT Errno = 66
	EPROTOTYPE      Errno = 67
	ERANGE          Errno = 68
	EROFS           Errno = 69
	ESPIPE          Errno = 70
	ESRCH           Errno = 71
	ESTALE          Errno = 72
	ETIMEDOUT       Errno = 73
	ETXTBSY         Errno = 74
	EXDEV           Errno = 75
	ENOTCAPABLE     Errno = 76
)

var errnos = [...]struct{ name, text string }{
	ESUCCESS:        {"ESUCCESS", "success"},
	E2BIG:           {"E2BIG", "argument list too long"},
	EACCES:          {"EACCES", "permission denied"},
	EADDRINUSE:      {"EADDRINUSE", "address in use"},
	EADDRNOTAVAIL:   {"EADDRNOTAVAIL", "address not available"},
	EAFNOSUPPORT:    {"EAFNOSUPPORT", "address family not supported"},
	EAGAIN:          {"EAGAIN", "temporarily unavailable, try again"},
	EALREADY:        {"EALREADY", "connection already in progress"},
	EBADF:           {"EBADF", "bad file descriptor"},
	EBADMSG:         {"EBADMSG", "bad message"},
	EBUSY:           {"EBUSY", "device or resource busy"},
	ECANCELED:       {"ECANCELED", "operation canceled"},
	ECHILD:          {"ECHILD", "no such child"},
	ECONNABORTED:    {"ECONNABORTED", "connection aborted"},
	ECONNREFUSED:    {"ECONNREFUSED", "connection refused"},
	ECONNRESET:      {"ECONNRESET", "connection reset"},
	EDEADLK:         {"EDEADLK", "would deadlock"},
	EDESTADDRREQ:    {"EDESTADDRREQ", "destination address required"},
	EDOM:            {"EDOM", "argument outside the function's domain"},
	EDQUOT:          {"EDQUOT", "quota exceeded"},
	EEXIST:          {"EEXIST", "file exists"},
	EFAULT:          {"EFAULT", "bad address"},
	EFBIG:           {"EFBIG", "file too large"},
	EHOSTUNREACH:    {"EHOSTUNREACH", "host unreachable"},
	EIDRM:           {"EIDRM", "identifier removed"},
	EILSEQ:          {"EILSEQ", "illegal byte sequence"},
	EINPROGRESS:     {"EINPROGRESS", "operation in progress"},
	EINTR:           {"EINTR", "interrupted"},
	EINVAL:          {"EINVAL", "invalid argument"},
	EIO:             {"EIO", "input/output error"},
	EISCONN:         {"EISCONN", "socket is connected"},
	EISDIR:          {"EISDIR", "is a directory"},
	ELOOP:           {"ELOOP", "too many levels of symbolic links"},
	EMFILE:          {"EMFILE", "too many open files"},
	EMLINK:          {"EMLINK", "too many links"},
	EMSGSIZE:        {"EMSGSIZE", "message too large"},
	EMULTIHOP:       {"EMULTIHOP", "multihop attempted"},
	ENAMETOOLONG:    {"ENAMETOOLONG", "filename too long"},
	ENETDOWN:        {"ENETDOWN", "network is down"},
	ENETRESET:       {"ENETRESET", "connection reset by network"},
	ENETUNREACH:     {"ENETUNREACH", "network unreachable"},
	ENFILE:          {"ENFILE", "too many open files in the system"},
	ENOBUFS:         {"ENOBUFS", "no buffer space available"},
	ENODEV:          {"ENODEV", "no such device"},
	ENOENT:          {"ENOENT", "no such file or directory"},
	ENOEXEC:         {"ENOEXEC", "not an executable"},
	ENOLCK:          {"ENOLCK", "no locks available"},
	ENOLINK:         {"ENOLINK", "link severed"},
	ENOMEM:          {"ENOMEM", "out of memory"},
	ENOMSG:          {"ENOMSG", "no message of the desired type"},
	ENOPROTOOPT:     {"ENOPROTOOPT", "protocol not available"},
	ENOSPC:          {"ENOSPC", "no space left on device"},
	ENOSYS:          {"ENOSYS", "not implemented"},
	ENOTCONN:        {"ENOTCONN", "socket is not connected"},
	ENOTDIR:         {"ENOTDIR", "not a directory"},
	ENOTEMPTY:       {"ENOTEMPTY", "directory not empty"},
	ENOTRECOVERABLE: {"ENOTRECOVERABLE", "state not recoverable"},
	ENOTSOCK:        {"ENOTSOCK", "not a socket"},
	ENOTSUP:         {"ENOTSUP", "not supported"},
	ENOTTY:          {"ENOTTY", "not a terminal"},
	ENXIO:           {"ENXIO", "no such device or address"},
	EOVERFLOW:       {"EOVERFLOW", "value too large"},
	EOWNERDEAD:      {"EOWNERDEAD", "previous owner died"},
	EPERM:           {"EPERM", "operation not permitted"},
	EPIPE:           {"EPIPE", "broken pipe"},
	EPROTO:          {"EPROTO", "protocol error"},
	EPROTONOSUPPORT: {"EPROTONOSUPPORT", "protocol not supported"},
	EPROTOTYPE:      {"EPROTOTYPE", "wrong protocol for socket"},
	ERANGE:          {"ERANGE", "result out of range"},
	EROFS:           {"EROFS", "read-only file system"},
	ESPIPE:          {"ESPIPE", "invalid seek"},
	ESRCH:           {"ESRCH", "no such process"},
	ESTALE:          {"ESTALE", "stale file handle"},
	ETIMEDOUT:       {"ETIMEDOUT", "timed out"},
	ETXTBSY:         {"ETXTBSY", "text file busy"},
	EXDEV:           {"EXDEV", "cross-device link"},
	ENOTCAPABLE:     {"ENOTCAPABLE", "capability not granted"},
}

// Errnos returns every error number in order, from ESUCCESS to ENOTCAPABLE.
func Errnos() []Errno {
	all := make([]Errno, len(errnos))
	for i := range all {
		all[i] = Errno(i)
	}
	return all
}

// Name returns the symbol, such as "ENOENT".
func (e Errno) Name() string {
	if int(e) < len(errnos) {
		return errnos[e].name
	}
	return fmt.Sprintf("Errno(%d)", uint16(e))
}

// Text returns what the number means, in a few words.
func (e Errno) Text() string {
	if int(e) < len(errnos) {
		return errnos[e].text
	}
	return "unknown error number"
}

// Error returns the name and the text.
func (e Errno) Error() string { return e.Name() + ": " + e.Text() }

/* The twin in C of what is hot in frames.py: apply_mask, encode_frame, FrameParser.
 *
 * Same names, same results, same words in the faults; the tests run on both. Read
 * frames.py to learn how frames work: here only what C needs is explained. It keeps to
 * the stable ABI of CPython 3.10, so one build serves all later versions.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

enum { CONTINUATION = 0x0, TEXT = 0x1, BINARY = 0x2, CLOSE = 0x8, PONG = 0xA };
enum { FIN = 0x80, RSV1 = 0x40, RSV = 0x70, OPCODE = 0x0F, MASKED = 0x80, LENGTH = 0x7F };

#ifndef PyBUF_WRITE /* in the stable ABI from 3.11 on */
#define PyBUF_WRITE 0x200
#endif

#define BAD_MASK "the masking key must be 4 bytes"

typedef struct {
    PyObject *frame;          /* frames.Frame, a tuple with names */
    newfunc new_tuple;        /* tuple.__new__, which makes one without Python code */
    PyObject *protocol_error; /* errors.ProtocolError */
    PyObject *too_big;        /* errors.MessageTooBig */
    PyObject *parser_type;
} State;

/* -- masks ----------------------------------------------------------------------- */

/* Write `size` bytes of `in` to `out`, XORed with `key` repeated (RFC 6455 §5.3).
 * The places may be the same, else they must not overlap. */
static void
mask_bytes(unsigned char *out, const unsigned char *in, size_t size,
           const unsigned char key[4])
{
    uint64_t wide, word;
    size_t i = 0;

    memcpy(&wide, key, 4);
    memcpy((unsigned char *)&wide + 4, key, 4);
    /* memcpy, as nothing is aligned. At -O3 this becomes vector instructions. */
    for (; size - i >= sizeof word; i += sizeof word) {
        memcpy(&word, in + i, sizeof word);
        word ^= wide;
        memcpy(out + i, &word, sizeof word);
    }
    for (; i < size; i++)
        out[i] = in[i] ^ key[i & 3];
}

/* Return a borrowed view of a 4-byte key, or NULL with an error set. */
static const unsigned char *
get_key(PyObject *mask)
{
    char *key;
    Py_ssize_t size;

    if (PyBytes_AsStringAndSize(mask, &key, &size) < 0)
        return NULL;
    if (size != 4) {
        PyErr_SetString(PyExc_ValueError, BAD_MASK);
        return NULL;
    }
    return (const unsigned char *)key;
}

PyDoc_STRVAR(apply_mask_doc,
"apply_mask($module, data, mask, /)\n--\n\n"
"Return ``data`` XORed with the 4-byte ``mask`` repeated (RFC 6455 §5.3).");

static PyObject *
apply_mask(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    const unsigned char *key;
    char *data;
    Py_ssize_t size;
    PyObject *result;

    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "apply_mask() takes data and mask");
        return NULL;
    }
    if (PyBytes_AsStringAndSize(args[0], &data, &size) < 0)
        return NULL;
    key = get_key(args[1]);
    if (key == NULL)
        return NULL;
    result = PyBytes_FromStringAndSize(NULL, size);
    if (result != NULL && size > 0)
        mask_bytes((unsigned char *)PyBytes_AsString(result),
                   (const unsigned char *)data, (size_t)size, key);
    return result;
}

/* -- out ------------------------------------------------------------------------- */

PyDoc_STRVAR(encode_frame_doc,
"encode_frame($module, opcode, payload, /, *, fin=True, rsv1=False, mask=None)\n--\n\n"
"Return the bytes of one frame (RFC 6455 §5.2), its length in the fewest bytes.");

static PyObject *
encode_frame(PyObject *module, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    int fin = 1, rsv1 = 0;
    long opcode;
    PyObject *mask = Py_None, *payload, *result = NULL;
    const unsigned char *key = NULL;
    unsigned char *out;
    char *data;
    Py_ssize_t size, header, width, i, named = names == NULL ? 0 : PyTuple_Size(names);

    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "encode_frame() takes opcode and payload");
        return NULL;
    }
    for (i = 0; i < named; i++) {
        PyObject *name = PyTuple_GetItem(names, i), *value = args[2 + i];

        if (PyUnicode_CompareWithASCIIString(name, "mask") == 0)
            mask = value;
        else if (PyUnicode_CompareWithASCIIString(name, "rsv1") == 0)
            rsv1 = PyObject_IsTrue(value);
        else if (PyUnicode_CompareWithASCIIString(name, "fin") == 0)
            fin = PyObject_IsTrue(value);
        else {
            PyErr_Format(PyExc_TypeError, "encode_frame() has no argument %R", name);
            return NULL;
        }
        if (fin < 0 || rsv1 < 0)
            return NULL;
    }
    opcode = PyLong_AsLong(args[0]);
    if (opcode == -1 && PyErr_Occurred())
        return NULL;
    if (mask != Py_None && (key = get_key(mask)) == NULL)
        return NULL;
    payload = PyBytes_FromObject(args[1]); /* a bytes object is itself */
    if (payload == NULL)
        return NULL;
    if (PyBytes_AsStringAndSize(payload, &data, &size) < 0)
        goto done;
    if (opcode >= CLOSE && (size > 125 || !fin)) {
        PyErr_Format(PyExc_ValueError, "bad control frame: %zd bytes, fin=%s", size,
                     fin ? "True" : "False");
        goto done;
    }
    width = size < 126 ? 0 : size < 1 << 16 ? 2 : 8;
    header = 2 + width + (key == NULL ? 0 : 4);
    if (size > PY_SSIZE_T_MAX - header) {
        PyErr_NoMemory();
        goto done;
    }
    result = PyBytes_FromStringAndSize(NULL, header + size);
    if (result == NULL)
        goto done;
    out = (unsigned char *)PyBytes_AsString(result);
    *out++ = (unsigned char)((fin ? FIN : 0) | (rsv1 ? RSV1 : 0) | (opcode & OPCODE));
    *out++ = (unsigned char)((key == NULL ? 0 : MASKED)
                             | (width == 0 ? size : width == 2 ? 126 : 127));
    for (i = width; i > 0; i--)
        *out++ = (unsigned char)((uint64_t)size >> 8 * (i - 1));
    if (key == NULL) {
        memcpy(out, data, (size_t)size);
    }
    else {
        memcpy(out, key, 4);
        mask_bytes(out + 4, (const unsigned char *)data, (size_t)size, key);
    }
done:
    Py_DECREF(payload);
    return result;
}

PyDoc_STRVAR(encode_message_doc,
"encode_message($module, message, /)\n--\n\n"
"Return the unmasked frame of a text (``str``) or binary (``bytes``) message.");

static PyObject *
encode_message(PyObject *module, PyObject *message)
{
    const char *data;
    Py_ssize_t size, header;
    PyObject *result;
    unsigned char *out, opcode = FIN | BINARY;

    if (PyUnicode_Check(message)) {
        opcode = FIN | TEXT;
        data = PyUnicode_AsUTF8AndSize(message, &size);
        if (data == NULL)
            return NULL;
    }
    else if (PyBytes_AsStringAndSize(message, (char **)&data, &size) < 0)
        return NULL;
    header = size < 126 ? 2 : size < 1 << 16 ? 4 : 10;
    result = PyBytes_FromStringAndSize(NULL, header + size);
    if (result == NULL)
        return NULL;
    out = (unsigned char *)PyBytes_AsString(result);
    out[0] = opcode;
    out[1] = (unsigned char)(header == 2 ? size : header == 4 ? 126 : 127);
    for (Py_ssize_t i = 2; i < header; i++)
        out[i] = (unsigned char)((uint64_t)size >> 8 * (header - 1 - i));
    memcpy(out + header, data, (size_t)size);
    return result;
}

/* -- in -------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    State *state;
    PyObject *buffer;        /* bytes that are not parsed yet, or NULL; */
    size_t at;               /* they begin here */
    PyObject *fault_type;    /* why parsing stopped, as a class and words, or NULL; */
    PyObject *fault_message; /* an exception would hold on to its traceback */
    uint64_t max_message;
    uint64_t limit;          /* of the message under way */
    uint64_t size;           /* bytes announced so far by the message under way */
    uint64_t remaining;      /* bytes still to come of the data frame under way */
    unsigned char masked;    /* MASKED or 0 */
    unsigned char rsv1_allowed;
    unsigned char in_message;
    unsigned char opcode;    /* of the data frame under way, as are these: */
    unsigned char fin;
    unsigned char rsv1;
    unsigned char key[4];
    unsigned char busy;      /* a call is under way; see `enter` */
    PyObject *large;         /* bytes of a large message under way, or NULL; */
    size_t arrived;          /* so many are there, and unmasked */
} Parser;

#define MANY 4096   /* messages that are more than one look is for */
#define LARGE 65536 /* bytes from which a message is gathered where it will stay */

/* Two unsigned numbers of 63 bits cannot overflow 64 when added. */
#define MOST ((uint64_t)INT64_MAX)

/* As in frames.py. */
static uint64_t
max_deflated(uint64_t size)
{
    uint64_t growth = size / 7 + 64;

    return size > MOST - growth ? MOST : size + growth;
}

/* Stop parsing for good. Return 0, or -1 with an error set. */
static int
set_fault(Parser *self, PyObject *type, PyObject *message)
{
    if (message == NULL)
        return -1;
    Py_INCREF(type);
    self->fault_type = type;
    self->fault_message = message;
    return 0;
}

static int
protocol_fault(Parser *self, const char *message)
{
    return set_fault(self, self->state->protocol_error, PyUnicode_FromString(message));
}

static const char reserved_opcode[] = "reserved opcode 0x%x %s";

/* Return why no frame may begin with these two bytes now, or NULL. */
static const char *
check(const Parser *self, unsigned first, unsigned second, unsigned opcode)
{
    if (first & RSV
        && (!self->rsv1_allowed || (first & RSV) != RSV1 || opcode < TEXT
            || opcode > BINARY))
        return "reserved bit set without an extension (RFC 6455 §5.2)";
    if ((second & MASKED) != self->masked)
        return self->masked ? "a client must mask its frames (RFC 6455 §5.1)"
                            : "a server must not mask its frames (RFC 6455 §5.1)";
    if (opcode > BINARY && (opcode < CLOSE || opcode > PONG))
        return reserved_opcode;
    if (opcode >= CLOSE) {
        if ((second & LENGTH) > 125 || !(first & FIN))
            return "control frame fragmented or over 125 bytes (RFC 6455 §5.5)";
    }
    else if (self->in_message != (opcode == CONTINUATION))
        return self->in_message ? "new message inside a fragmented one (RFC 6455 §5.4)"
                                : "continuation without a message (RFC 6455 §5.4)";
    return NULL;
}

/* Append a Frame that takes `payload` over. Return 0, or -1 with an error set. */
static int
append_payload(const Parser *self, PyObject *frames, unsigned opcode, PyObject *payload,
               int fin, int rsv1)
{
    PyObject *number = PyLong_FromLong((long)opcode);
    PyObject *fields = PyTuple_New(4);
    PyObject *arguments = PyTuple_New(1);
    PyObject *frame = NULL;
    int result = -1;

    if (payload == NULL || number == NULL || fields == NULL || arguments == NULL) {
        Py_XDECREF(payload);
        Py_XDECREF(number);
        Py_XDECREF(fields);
        Py_XDECREF(arguments);
        return -1;
    }
    /* The tuples take the references over. */
    PyTuple_SetItem(fields, 0, number);
    PyTuple_SetItem(fields, 1, payload);
    PyTuple_SetItem(fields, 2, PyBool_FromLong(fin));
    PyTuple_SetItem(fields, 3, PyBool_FromLong(rsv1));
    PyTuple_SetItem(arguments, 0, fields);
    frame = self->state->new_tuple((PyTypeObject *)self->state->frame, arguments, NULL);
    Py_DECREF(arguments);
    if (frame != NULL) {
        result = PyList_Append(frames, frame);
        Py_DECREF(frame);
    }
    return result;
}

/* Append a Frame with `size` bytes of `data`, unmasked. Return 0, or -1 with an error
 * set. */
static int
append_frame(const Parser *self, PyObject *frames, unsigned opcode,
             const unsigned char *data, size_t size, int fin, int rsv1)
{
    /* Without data to copy, for then one byte would be an object that all share. */
    PyObject *payload = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);

    if (payload != NULL && size > 0) {
        unsigned char *out = (unsigned char *)PyBytes_AsString(payload);

        if (self->masked)
            mask_bytes(out, data, size, self->key);
        else
            memcpy(out, data, size);
    }
    return append_payload(self, frames, opcode, payload, fin, rsv1);
}

/* Turn the key for what follows `size` masked bytes. */
static void
turn_key(Parser *self, size_t size)
{
    unsigned char key[4];

    for (unsigned i = 0; i < 4; i++)
        key[i] = self->key[(i + size) & 3];
    memcpy(self->key, key, 4);
}

/* Note `size` more bytes of the large message, whose bytes are in their place. Append it
 * when it is whole. Return 0, or -1 with an error set. */
static int
grow_large(Parser *self, PyObject *frames, size_t size)
{
    unsigned char *place = (unsigned char *)PyBytes_AsString(self->large) + self->arrived;
    PyObject *payload;

    if (self->masked) {
        mask_bytes(place, place, size, self->key);
        turn_key(self, size);
    }
    self->arrived += size;
    self->remaining -= size;
    if (self->remaining)
        return 0;
    payload = self->large;
    self->large = NULL;
    return append_payload(self, frames, self->opcode, payload, 1, 0);
}

/* Append the next piece of the frame under way. Return its size, or -1. */
static Py_ssize_t
take_piece(Parser *self, PyObject *frames, const unsigned char *data, size_t available)
{
    size_t size = available < self->remaining ? available : (size_t)self->remaining;

    if (size == 0)
        return 0;
    if (self->large != NULL) {
        memcpy(PyBytes_AsString(self->large) + self->arrived, data, size);
        return grow_large(self, frames, size) < 0 ? -1 : (Py_ssize_t)size;
    }
    self->remaining -= size;
    if (append_frame(self, frames, self->opcode, data, size,
                     self->fin && self->remaining == 0, self->rsv1) < 0)
        return -1;
    turn_key(self, size);
    self->opcode = CONTINUATION;
    self->rsv1 = 0;
    return (Py_ssize_t)size;
}

/* Append what `data` holds, `most` frames at most. Return how many bytes that took; -1 with
 * an error set. */
static Py_ssize_t
parse(Parser *self, PyObject *frames, const unsigned char *data, size_t end,
      Py_ssize_t most)
{
    size_t position = 0;

    if (self->remaining && most > 0) {
        Py_ssize_t taken = take_piece(self, frames, data, end);
        if (taken < 0)
            return -1;
        position = (size_t)taken;
    }
    while (end - position >= 2 && PyList_Size(frames) < most) {
        unsigned first = data[position], second = data[position + 1];
        unsigned opcode = first & OPCODE;
        int fin = (first & FIN) != 0, rsv1 = (first & RSV1) != 0;
        size_t start = position + 2;
        uint64_t size = second & LENGTH;
        const char *wrong = check(self, first, second, opcode);

        if (wrong == reserved_opcode)
            return set_fault(self, self->state->protocol_error,
                             PyUnicode_FromFormat(wrong, opcode, "(RFC 6455 §5.2)"));
        if (wrong != NULL)
            return protocol_fault(self, wrong);
        if (size >= 126) {
            size_t width = size == 126 ? 2 : 8;

            if (end - start < width)
                break;
            for (size = 0; width > 0; width--)
                size = size << 8 | data[start++];
            if (size < (second == (self->masked | 126) ? 126 : 1 << 16))
                return protocol_fault(self,
                                      "length not in the fewest bytes (RFC 6455 §5.2)");
            if (size > MOST)
                return protocol_fault(self, "length over 63 bits (RFC 6455 §5.2)");
        }
        if (opcode < CLOSE) {
            if (opcode)
                self->limit = rsv1 ? max_deflated(self->max_message) : self->max_message;
            if (self->size + size > self->limit)
                return set_fault(
                    self, self->state->too_big,
                    PyUnicode_FromFormat("a message of at least %llu bytes exceeds the "
                                         "limit of %llu",
                                         (unsigned long long)(self->size + size),
                                         (unsigned long long)self->limit));
        }
        if (self->masked) {
            if (end - start < 4)
                break;
            memcpy(self->key, data + start, 4);
            start += 4;
        }
        if (opcode >= CLOSE) {
            if (end - start < size)
                break; /* it is small: wait for the whole of it */
        }
        else {
            self->in_message = !fin;
            self->size = fin ? 0 : self->size + size;
        }
        if (end - start < size) {
            Py_ssize_t taken;

            self->opcode = (unsigned char)opcode;
            self->fin = (unsigned char)fin;
            self->rsv1 = (unsigned char)rsv1;
            self->remaining = size;
            if (size >= LARGE && fin && opcode && !rsv1) {
                self->large = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
                self->arrived = 0;
                if (self->large == NULL)
                    return -1;
            }
            taken = take_piece(self, frames, data + start, end - start);
            return taken < 0 ? -1 : (Py_ssize_t)start + taken;
        }
        if (append_frame(self, frames, opcode, data + start, (size_t)size, fin, rsv1) < 0)
            return -1;
        position = start + (size_t)size;
    }
    return (Py_ssize_t)position;
}

PyDoc_STRVAR(feed_doc,
"feed($self, data, most=sys.maxsize, /)\n--\n\n"
"Return the frames, or pieces of them, that ``data`` completes, ``most`` at most.");

static PyObject *
feed_busy(Parser *self, PyObject *const *args, Py_ssize_t count)
{
    PyObject *frames, *data;
    char *bytes;
    Py_ssize_t size, parsed, most = PY_SSIZE_T_MAX;
    size_t at;

    if (count < 1 || count > 2) {
        PyErr_SetString(PyExc_TypeError, "feed() takes data and most");
        return NULL;
    }
    if (PyBytes_AsStringAndSize(args[0], &bytes, &size) < 0)
        return NULL;
    if (count == 2) {
        most = PyLong_AsSsize_t(args[1]);
        if (most == -1 && PyErr_Occurred())
            return NULL;
    }
    frames = PyList_New(0);
    if (frames == NULL || self->fault_type != NULL)
        return frames;
    data = self->buffer;
    at = self->at;
    self->buffer = NULL; /* `data` has the reference now */
    self->at = 0;
    if (data == NULL) {
        Py_INCREF(args[0]);
        data = args[0];
    }
    else if (size > 0) {
        size_t kept = (size_t)PyBytes_Size(data) - at;
        PyObject *joined = NULL;

        if (size <= PY_SSIZE_T_MAX - (Py_ssize_t)kept)
            joined = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)kept + size);
        else
            PyErr_NoMemory();
        if (joined != NULL) {
            memcpy(PyBytes_AsString(joined), PyBytes_AsString(data) + at, kept);
            memcpy(PyBytes_AsString(joined) + kept, bytes, (size_t)size);
        }
        Py_DECREF(data);
        if (joined == NULL) {
            Py_DECREF(frames);
            return NULL;
        }
        data = joined;
        at = 0;
    }
    bytes = PyBytes_AsString(data) + at;
    size = PyBytes_Size(data) - (Py_ssize_t)at;
    parsed = parse(self, frames, (const unsigned char *)bytes, (size_t)size, most);
    if (parsed >= 0 && parsed < size && self->fault_type == NULL) {
        if (PyList_Size(frames) < most) {
            self->buffer = PyBytes_FromStringAndSize(bytes + parsed, size - parsed);
            if (self->buffer == NULL)
                parsed = -1;
        }
        else {
            /* Not cut: to do so for each few frames would be quadratic. */
            Py_INCREF(data);
            self->buffer = data;
            self->at = at + (size_t)parsed;
        }
    }
    Py_DECREF(data);
    if (parsed < 0)
        Py_CLEAR(frames);
    return frames;
}

/* What makes objects may start the garbage collector, and a finaliser do anything: also
 * come back here, while the parser changes. Return whether it does, with an error set. */
static int
is_busy(const Parser *self)
{
    if (self->busy)
        PyErr_SetString(PyExc_RuntimeError, "the parser is at work already");
    return self->busy;
}

static PyObject *
feed(Parser *self, PyObject *const *args, Py_ssize_t count)
{
    PyObject *frames;

    if (is_busy(self))
        return NULL;
    self->busy = 1;
    frames = feed_busy(self, args, count);
    self->busy = 0;
    return frames;
}

PyDoc_STRVAR(messages_doc,
"messages($self, data, /)\n--\n\n"
"Return the messages, where ``data`` is nothing but whole ones; else do nothing.");

static PyObject *
messages(Parser *self, PyObject *data)
{
    PyObject *result;
    char *bytes;
    Py_ssize_t length;
    size_t position = 0, end;

    if (PyBytes_AsStringAndSize(data, &bytes, &length) < 0)
        return NULL;
    if (self->buffer != NULL || self->remaining || self->in_message
        || self->fault_type != NULL)
        Py_RETURN_NONE;
    result = PyList_New(0);
    end = (size_t)length;
    while (result != NULL && position < end) {
        const unsigned char *frame = (unsigned char *)bytes + position;
        size_t left = end - position, size, start = 2;
        PyObject *message;
        int failed;

        if (PyList_Size(result) == MANY || left < 2
            || (frame[0] != (FIN | TEXT) && frame[0] != (FIN | BINARY))
            || (frame[1] & MASKED) != self->masked || (frame[1] & LENGTH) == 127)
            goto other;
        size = frame[1] & LENGTH;
        if (size == 126) {
            if (left < 4)
                goto other;
            size = (size_t)frame[2] << 8 | frame[3];
            if (size < 126)
                goto other;
            start = 4;
        }
        if (self->masked)
            start += 4;
        if (size > self->max_message || left < start || left - start < size)
            goto other;
        message = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
        if (message == NULL)
            goto failed;
        if (size > 0) {
            char *out = PyBytes_AsString(message);

            if (self->masked)
                mask_bytes((unsigned char *)out, frame + start, size, frame + start - 4);
            else
                memcpy(out, frame + start, size);
        }
        if (frame[0] == (FIN | TEXT)) {
            PyObject *text = PyUnicode_DecodeUTF8(PyBytes_AsString(message),
                                                  (Py_ssize_t)size, "strict");

            Py_DECREF(message);
            if (text == NULL) {
                PyErr_Clear();
                goto other; /* `feed` says what is wrong */
            }
            message = text;
        }
        failed = PyList_Append(result, message);
        Py_DECREF(message);
        if (failed < 0)
            goto failed;
        position += start + size;
    }
    return result;
other:
    Py_DECREF(result);
    Py_RETURN_NONE;
failed:
    Py_DECREF(result);
    return NULL;
}

PyDoc_STRVAR(place_doc,
"place($self, /)\n--\n\n"
"Return where the next bytes are best put, a memoryview, or None; see frames.py.");

static PyObject *
place(Parser *self, PyObject *unused)
{
    if (self->large == NULL)
        Py_RETURN_NONE;
    return PyMemoryView_FromMemory(PyBytes_AsString(self->large) + self->arrived,
                                   (Py_ssize_t)self->remaining, PyBUF_WRITE);
}

PyDoc_STRVAR(placed_doc,
"placed($self, size, /)\n--\n\n"
"Return the frames that ``size`` bytes, put into ``place()``, complete.");

static PyObject *
placed(Parser *self, PyObject *count)
{
    Py_ssize_t size = PyLong_AsSsize_t(count);
    PyObject *frames;

    if (size == -1 && PyErr_Occurred())
        return NULL;
    if (self->large == NULL || size < 0 || (uint64_t)size > self->remaining) {
        PyErr_SetString(PyExc_ValueError, "there was no place for so many bytes");
        return NULL;
    }
    if (is_busy(self))
        return NULL;
    self->busy = 1;
    frames = PyList_New(0);
    if (frames != NULL && grow_large(self, frames, (size_t)size) < 0)
        Py_CLEAR(frames);
    self->busy = 0;
    return frames;
}

static PyObject *
get_fault(Parser *self, void *closure)
{
    if (self->fault_type == NULL)
        Py_RETURN_NONE;
    return PyObject_CallFunctionObjArgs(self->fault_type, self->fault_message, NULL);
}

static PyObject *
new_parser(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"masked", "max_message", "rsv1", NULL};
    int masked, rsv1 = 0;
    long long max_message;
    PyObject *module;
    Parser *self;

    if (PyTuple_Size(args) > 0) {
        PyErr_SetString(PyExc_TypeError, "FrameParser() takes keyword arguments only");
        return NULL;
    }
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "pL|p:FrameParser", names, &masked,
                                     &max_message, &rsv1))
        return NULL;
    module = PyType_GetModule(type);
    if (module == NULL)
        return NULL;
    self = PyObject_New(Parser, type);
    if (self == NULL)
        return NULL;
    memset((char *)self + sizeof(PyObject), 0, sizeof *self - sizeof(PyObject));
    self->state = PyModule_GetState(module);
    self->masked = masked ? MASKED : 0;
    self->max_message = max_message < 0 ? 0 : (uint64_t)max_message;
    self->rsv1_allowed = (unsigned char)rsv1;
    return (PyObject *)self;
}

static void
delete_parser(Parser *self)
{
    PyTypeObject *type = Py_TYPE(self);

    Py_XDECREF(self->buffer);
    Py_XDECREF(self->large);
    Py_XDECREF(self->fault_type);
    Py_XDECREF(self->fault_message);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyMethodDef parser_methods[] = {
    {"feed", (PyCFunction)(void (*)(void))feed, METH_FASTCALL, feed_doc},
    {"messages", (PyCFunction)messages, METH_O, messages_doc},
    {"place", (PyCFunction)place, METH_NOARGS, place_doc},
    {"placed", (PyCFunction)placed, METH_O, placed_doc},
    {NULL},
};

static PyGetSetDef parser_attributes[] = {
    {"fault", (getter)get_fault, NULL,
     "Why parsing stopped for good, or None; frames before the fault were returned."},
    {NULL},
};

static PyType_Slot parser_slots[] = {
    {Py_tp_doc, "Cuts a byte stream into frames; see frames.FrameParser."},
    {Py_tp_new, new_parser},
    {Py_tp_dealloc, delete_parser},
    {Py_tp_methods, parser_methods},
    {Py_tp_getset, parser_attributes},
    {0, NULL},
};

static PyType_Spec parser_spec = {
    .name = "flask_wschat.codec._speedups.FrameParser",
    .basicsize = sizeof(Parser),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = parser_slots,
};

/* -- the module ------------------------------------------------------------------ */

static int
execute(PyObject *module)
{
    State *state = PyModule_GetState(module);
    PyObject *frames = PyImport_ImportModule("flask_wschat.codec.frames");
    PyObject *errors = PyImport_ImportModule("flask_wschat.errors");

    if (frames != NULL && errors != NULL) {
        state->frame = PyObject_GetAttrString(frames, "Frame");
        state->protocol_error = PyObject_GetAttrString(errors, "ProtocolError");
        state->too_big = PyObject_GetAttrString(errors, "MessageTooBig");
        state->new_tuple = (newfunc)PyType_GetSlot(&PyTuple_Type, Py_tp_new);
        state->parser_type = PyType_FromModuleAndSpec(module, &parser_spec, NULL);
    }
    Py_XDECREF(frames);
    Py_XDECREF(errors);
    if (state->frame == NULL || state->protocol_error == NULL || state->too_big == NULL
        || state->parser_type == NULL)
        return -1;
    if (!PyType_IsSubtype((PyTypeObject *)state->frame, &PyTuple_Type)) {
        PyErr_SetString(PyExc_TypeError, "Frame is no tuple");
        return -1;
    }
    return PyModule_AddType(module, (PyTypeObject *)state->parser_type);
}

static int
traverse(PyObject *module, visitproc visit, void *arg)
{
    State *state = PyModule_GetState(module);

    Py_VISIT(state->frame);
    Py_VISIT(state->protocol_error);
    Py_VISIT(state->too_big);
    Py_VISIT(state->parser_type);
    return 0;
}

static int
clear(PyObject *module)
{
    State *state = PyModule_GetState(module);

    Py_CLEAR(state->frame);
    Py_CLEAR(state->protocol_error);
    Py_CLEAR(state->too_big);
    Py_CLEAR(state->parser_type);
    return 0;
}

static void
delete(void *module)
{
    clear((PyObject *)module);
}

static PyMethodDef functions[] = {
    {"apply_mask", (PyCFunction)(void (*)(void))apply_mask, METH_FASTCALL,
     apply_mask_doc},
    {"encode_frame", (PyCFunction)(void (*)(void))encode_frame,
     METH_FASTCALL | METH_KEYWORDS, encode_frame_doc},
    {"encode_message", encode_message, METH_O, encode_message_doc},
    {NULL},
};

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, execute},
    {0, NULL},
};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_speedups",
    .m_doc = "The twin in C of what is hot in frames.py.",
    .m_size = sizeof(State),
    .m_methods = functions,
    .m_slots = slots,
    .m_traverse = traverse,
    .m_clear = clear,
    .m_free = delete,
};

PyMODINIT_FUNC
PyInit__speedups(void)
{
    return PyModuleDef_Init(&definition);
}

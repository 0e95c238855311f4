/* Puts a broadcast into many queues in one call, sends it from them in another, and tells
   what memory they hold; reads from a socket without a buffer for each read; counts.

   `Queue` holds what `queue.Queue`, its Python twin, does, as plain C fields, so that a
   thousand of them can be looked at without a call for each. All that is not the usual
   case (a large backlog, a full queue or socket, an error) is left to Python. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <errno.h>
#include <pythread.h>
#include <stdint.h>
#include <string.h>
#include <structmember.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <time.h>

#ifndef Py_XSETREF /* not in the stable ABI */
#define Py_XSETREF(place, value)             \
    do {                                     \
        PyObject *old = (PyObject *)(place); \
        (place) = (value);                   \
        Py_XDECREF(old);                     \
    } while (0)
#endif

#define AT_ONCE 256 /* sends between two looks at Python's objects */
#define BATCH 65536 /* as in outbox.py */
#define READ_SIZE 65536
#define PLACE 8 /* these as in queue.py */
#define FRAME_COST 64
#define SAMPLE 256

#define CONTROL 0x8 /* these as in counts.py */
#define SENT 0
#define RECEIVED 1
#define HANDLED 2
static const double SECONDS[] = {0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005,
                                 0.01,   0.025,   0.05,   0.1,   0.25,   0.5,
                                 1.0,    2.5,     5.0,    10.0};
#define BOUNDS ((Py_ssize_t)(sizeof SECONDS / sizeof SECONDS[0]))

/* As PyArg_ParseTuple does, which takes as long as all the rest of these calls. */
static int
need(int fine, const char *what)
{
    if (!fine)
        PyErr_SetString(PyExc_TypeError, what);
    return fine;
}

/* In the stable ABI of all Pythons, unlike PyObject_GetBuffer, but deprecated: what it
   points to may move, unless something holds it. Here a memoryview does. */
PyAPI_FUNC(int) PyObject_AsWriteBuffer(PyObject *, void **, Py_ssize_t *);
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

typedef struct {
    PyObject_HEAD
    PyObject *view; /* keeps the memory where it is */
    uint64_t *numbers;
    Py_ssize_t count;
} Counts;

static double
now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static PyObject *
read_clock(PyObject *module, PyObject *nothing)
{
    return PyFloat_FromDouble(now());
}

/* Return 0, or -1 with an error set, and nothing has changed. */
static int
counts_use(Counts *counts, PyObject *memory, int copied)
{
    void *numbers;
    Py_ssize_t size;
    PyObject *view = PyMemoryView_FromObject(memory);
    if (view == NULL)
        return -1;
    if (PyObject_AsWriteBuffer(view, &numbers, &size) < 0 || size < 8 || size % 8 ||
        (uintptr_t)numbers % sizeof(uint64_t)) {
        Py_DECREF(view);
        PyErr_SetString(PyExc_ValueError,
                        "counts need writable memory, a multiple of eight bytes");
        return -1;
    }
    if (copied && size / 8 < counts->count) {
        Py_DECREF(view);
        PyErr_SetString(PyExc_ValueError,
                        "there is not enough memory for these counts");
        return -1;
    }
    if (copied && counts->count)
        memmove(numbers, counts->numbers, (size_t)counts->count * 8);
    counts->numbers = numbers;
    counts->count = size / 8;
    Py_XSETREF(counts->view, view);
    return 0;
}

static int
counts_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    PyObject *memory;
    if (!PyArg_ParseTuple(args, "O", &memory))
        return -1;
    return counts_use((Counts *)self, memory, 0);
}

static void
counts_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF(((Counts *)self)->view);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyObject *
counts_move_to(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    int anew = count == 2 ? PyObject_IsTrue(args[1]) : 0;
    if (anew < 0 || !need(count == 1 || count == 2, "move_to() takes memory"))
        return NULL;
    if (counts_use((Counts *)self, args[0], !anew) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* Return whether `count` numbers begin at a place; 0 with an error set: they do not. */
static int
has(Counts *counts, PyObject *place, Py_ssize_t count, Py_ssize_t *index)
{
    *index = PyLong_AsSsize_t(place);
    if (*index == -1 && PyErr_Occurred())
        return 0;
    if (*index >= 0 && *index <= counts->count - count)
        return 1;
    PyErr_SetString(PyExc_IndexError, "there is no such place");
    return 0;
}

static PyObject *
counts_add(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    Counts *counts = (Counts *)self;
    Py_ssize_t place;
    unsigned long long more = 1;
    if (!need((count == 1 || count == 2) && PyLong_Check(args[count - 1]),
              "add() takes a place and a number") ||
        !has(counts, args[0], 1, &place))
        return NULL;
    if (count == 2 && (more = PyLong_AsUnsignedLongLong(args[1])) == (unsigned long long)-1 &&
        PyErr_Occurred())
        return NULL;
    counts->numbers[place] += more;
    Py_RETURN_NONE;
}

/* Return what the clock says. */
static double
note_time(Counts *counts, Py_ssize_t place, double began)
{
    double ended = now(), seconds = ended - began, sum;
    Py_ssize_t bound = 0;
    if (seconds < 0)
        seconds = 0;
    while (bound < BOUNDS && seconds > SECONDS[bound])
        bound++;
    counts->numbers[place + bound] += 1;
    memcpy(&sum, &counts->numbers[place + BOUNDS + 1], sizeof sum);
    sum += seconds;
    memcpy(&counts->numbers[place + BOUNDS + 1], &sum, sizeof sum);
    return ended;
}

static PyObject *
counts_took(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    Counts *counts = (Counts *)self;
    Py_ssize_t place;
    if (!need(count == 2 && PyFloat_Check(args[1]), "took() takes a place and a time") ||
        !has(counts, args[0], BOUNDS + 2, &place))
        return NULL;
    return PyFloat_FromDouble(note_time(counts, place, PyFloat_AsDouble(args[1])));
}

/* As add() and took(), for what happens with each message. */
static PyObject *
counts_received(PyObject *self, PyObject *number)
{
    Counts *counts = (Counts *)self;
    Py_ssize_t more = PyLong_AsSsize_t(number);
    if (more < 0) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_OverflowError, "there are no negative numbers");
        return NULL;
    }
    if (counts->count <= RECEIVED) {
        PyErr_SetString(PyExc_IndexError, "there is no such place");
        return NULL;
    }
    counts->numbers[RECEIVED] += (uint64_t)more;
    Py_RETURN_NONE;
}

static PyObject *
counts_handled(PyObject *self, PyObject *began)
{
    Counts *counts = (Counts *)self;
    double start = PyFloat_AsDouble(began);
    if (start == -1 && PyErr_Occurred())
        return NULL;
    if (counts->count < HANDLED + BOUNDS + 2) {
        PyErr_SetString(PyExc_IndexError, "there is no such place");
        return NULL;
    }
    return PyFloat_FromDouble(note_time(counts, HANDLED, start));
}

static PyMethodDef counts_methods[] = {
    {"received", counts_received, METH_O, "Add to the messages of peers."},
    {"handled", counts_handled, METH_O, "Do as `took` for a message of a listener."},
    {"add", (PyCFunction)(void (*)(void))counts_add, METH_FASTCALL, "Add to a number."},
    {"took", (PyCFunction)(void (*)(void))counts_took, METH_FASTCALL,
     "Note how long it is since a time, in the histogram at a place."},
    {"move_to", (PyCFunction)(void (*)(void))counts_move_to, METH_FASTCALL,
     "Go on in other memory, from there on or from zero."},
    {NULL}};

static PyType_Slot counts_slots[] = {{Py_tp_init, counts_init},
                                     {Py_tp_new, PyType_GenericNew},
                                     {Py_tp_dealloc, counts_dealloc},
                                     {Py_tp_methods, counts_methods},
                                     {0, NULL}};

static PyType_Spec counts_spec = {"flask_wschat.transports._speedups.Counts",
                                  sizeof(Counts), 0, Py_TPFLAGS_DEFAULT, counts_slots};

static PyTypeObject *counts_type;

typedef struct {
    PyObject_HEAD
    Py_ssize_t left;
    Counts *counts; /* or NULL */
} Allowance;

static int
allowance_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    Allowance *allowance = (Allowance *)self;
    PyObject *counts = Py_None;
    allowance->left = PY_SSIZE_T_MAX;
    if (!PyArg_ParseTuple(args, "|nO", &allowance->left, &counts) ||
        !need(counts == Py_None || PyObject_TypeCheck(counts, counts_type),
              "an allowance is for queues that count in Counts"))
        return -1;
    if (counts == Py_None)
        counts = NULL;
    Py_XINCREF(counts);
    Py_XSETREF(allowance->counts, (Counts *)counts);
    return 0;
}

static void
allowance_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF(((Allowance *)self)->counts);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

/* Count a frame that so many queues were given, unless it is a control frame. */
static void
note(Allowance *allowance, PyObject *frame, Py_ssize_t queues)
{
    if (allowance->counts == NULL || allowance->counts->numbers == NULL)
        return;
    if (PyBytes_Size(frame) && !(PyBytes_AsString(frame)[0] & CONTROL))
        allowance->counts->numbers[SENT] += (uint64_t)queues;
}

static PyObject *
allowance_note(PyObject *self, PyObject *frame)
{
    if (!need(PyBytes_Check(frame), "note() takes bytes"))
        return NULL;
    note((Allowance *)self, frame, 1);
    Py_RETURN_NONE;
}

static PyMemberDef allowance_members[] = {
    {"left", T_PYSSIZET, offsetof(Allowance, left), 0,
     "Bytes until somebody has to look at what the queues really hold."},
    {"counts", T_OBJECT, offsetof(Allowance, counts), READONLY,
     "Where queues count the messages that they were given."},
    {NULL}};

static PyMethodDef allowance_methods[] = {
    {"note", allowance_note, METH_O, "Count a frame, unless it is a control frame."},
    {NULL}};

static PyType_Slot allowance_slots[] = {{Py_tp_init, allowance_init},
                                        {Py_tp_new, PyType_GenericNew},
                                        {Py_tp_dealloc, allowance_dealloc},
                                        {Py_tp_members, allowance_members},
                                        {Py_tp_methods, allowance_methods},
                                        {0, NULL}};

static PyType_Spec allowance_spec = {"flask_wschat.transports._speedups.Allowance",
                                     sizeof(Allowance), 0, Py_TPFLAGS_DEFAULT,
                                     allowance_slots};

static PyTypeObject *allowance_type;

typedef struct {
    PyObject_HEAD
    Allowance *allowance; /* of all queues of an application */
    PyObject *frames; /* list of bytes */
    PyObject *batch;  /* bytes or memoryview, partly sent; empty if none */
    Py_ssize_t size;
    Py_ssize_t limit;
    unsigned long thread; /* whose queue it is */
    int fd;
    char flushing;
    char watched;
} Queue;

static int
queue_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    Queue *queue = (Queue *)self;
    PyObject *allowance;
    Py_ssize_t limit;
    static char *names[] = {"limit", "allowance", NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "nO!", names, &limit, allowance_type,
                                     &allowance))
        return -1;
    PyObject *frames = PyList_New(0);
    PyObject *batch = PyBytes_FromStringAndSize(NULL, 0);
    if (frames == NULL || batch == NULL) {
        Py_XDECREF(frames);
        Py_XDECREF(batch);
        return -1;
    }
    Py_INCREF(allowance);
    Py_XSETREF(queue->allowance, (Allowance *)allowance);
    Py_XSETREF(queue->frames, frames);
    Py_XSETREF(queue->batch, batch);
    queue->size = 0;
    queue->limit = limit;
    queue->thread = PyThread_get_thread_ident();
    queue->fd = -1;
    queue->flushing = queue->watched = 0;
    return 0;
}

static int
queue_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((Queue *)self)->frames);
    Py_VISIT(((Queue *)self)->batch);
    return 0;
}

static int
queue_clear(PyObject *self)
{
    Py_CLEAR(((Queue *)self)->allowance); /* holds nothing: no part of a circle */
    Py_CLEAR(((Queue *)self)->frames);
    Py_CLEAR(((Queue *)self)->batch);
    return 0;
}

static void
queue_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    queue_clear(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyMemberDef queue_members[] = {
    {"allowance", T_OBJECT_EX, offsetof(Queue, allowance), READONLY,
     "What all queues of an application may take; who fills one takes from it."},
    {"frames", T_OBJECT_EX, offsetof(Queue, frames), READONLY,
     "Those not on their way yet; who appends one adds its bytes to `size`."},
    {"batch", T_OBJECT_EX, offsetof(Queue, batch), 0, "What is partly sent."},
    {"size", T_PYSSIZET, offsetof(Queue, size), 0, "Bytes that wait."},
    {"limit", T_PYSSIZET, offsetof(Queue, limit), 0, "Bytes that may wait."},
    {"fd", T_INT, offsetof(Queue, fd), 0, "The socket, -1 if it is not a plain one."},
    {"flushing", T_BOOL, offsetof(Queue, flushing), 0,
     "A flush is due, or awaits room."},
    {"watched", T_BOOL, offsetof(Queue, watched), 0, "Somebody waits for a flush."},
    {NULL}};

static PyTypeObject *queue_type;

/* Queue a frame if there is room, and list the queue for the next flush. Return 0 if there
   is none or another thread asks, 2 if it is the first one listed, else 1; -1 with an
   error set. */
static int
add(Queue *queue, PyObject *frame, Py_ssize_t length, PyObject *unflushed)
{
    if (queue->size >= queue->limit || queue->frames == NULL ||
        queue->thread != PyThread_get_thread_ident())
        return 0;
    if (PyList_Append(queue->frames, frame) < 0)
        return -1;
    queue->size += length;
    if (queue->flushing)
        return 1;
    if (PyList_Append(unflushed, (PyObject *)queue) < 0)
        return -1;
    queue->flushing = 1;
    return PyList_Size(unflushed) == 1 ? 2 : 1;
}

static PyObject *
queue_add(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    if (!need(count == 2 && PyBytes_Check(args[0]) && PyList_Check(args[1]),
              "add() takes bytes and a list"))
        return NULL;
    Queue *queue = (Queue *)self;
    if (queue->allowance == NULL || queue->allowance->left < 0)
        return PyLong_FromLong(0);
    Py_ssize_t length = PyBytes_Size(args[0]);
    int added = add(queue, args[0], length, args[1]);
    if (added > 0) {
        queue->allowance->left -= length + FRAME_COST;
        note(queue->allowance, args[0], 1);
    }
    return added < 0 ? NULL : PyLong_FromLong(added);
}

static PyObject *
add_to_all(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    if (!need(count == 3 && PyList_Check(args[0]) && PyBytes_Check(args[1]) &&
                  PyList_Check(args[2]),
              "add_to_all() takes a list, bytes and a list"))
        return NULL;
    PyObject *queues = args[0], *frame = args[1], *unflushed = args[2];
    PyObject *others = PyList_New(0);
    Py_ssize_t length = PyBytes_Size(frame), number = PyList_Size(queues);
    PyObject *first = number ? PyList_GetItem(queues, 0) : NULL;
    Allowance *allowance = NULL;
    if (first != NULL && PyObject_TypeCheck(first, queue_type))
        allowance = ((Queue *)first)->allowance;
    if (allowance != NULL) /* the frame is there once, places are not */
        allowance->left -= length + PLACE * number;
    for (Py_ssize_t index = 0; others != NULL && index < PyList_Size(queues); index++) {
        PyObject *item = PyList_GetItem(queues, index);
        int added = -1;
        if (PyObject_TypeCheck(item, queue_type))
            added = add((Queue *)item, frame, length, unflushed);
        else
            PyErr_SetString(PyExc_TypeError, "this is not a queue");
        if (added < 0 || (added == 0 && PyList_Append(others, item) < 0))
            Py_CLEAR(others);
    }
    if (allowance != NULL && others != NULL)
        note(allowance, frame, number - PyList_Size(others));
    return others;
}

static PyMethodDef queue_methods[] = {
    {"add", (PyCFunction)(void (*)(void))queue_add, METH_FASTCALL,
     "Queue a frame; 0: there is no room, 2: the list for the next flush was empty."},
    {NULL}};

static PyType_Slot queue_slots[] = {{Py_tp_init, queue_init},
                                    {Py_tp_new, PyType_GenericNew},
                                    {Py_tp_traverse, queue_traverse},
                                    {Py_tp_clear, queue_clear},
                                    {Py_tp_dealloc, queue_dealloc},
                                    {Py_tp_members, queue_members},
                                    {Py_tp_methods, queue_methods},
                                    {0, NULL}};

static PyType_Spec queue_spec = {
    "flask_wschat.transports._speedups.Queue", sizeof(Queue), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, queue_slots};

/* Whether all that waits can go in one send, and nobody wants to hear of it. */
static int
is_ready(Queue *queue)
{
    if (queue->fd < 0 || queue->watched || !queue->flushing || queue->frames == NULL ||
        queue->batch == NULL || !PyBytes_CheckExact(queue->batch) ||
        PyBytes_Size(queue->batch) != 0)
        return 0;
    Py_ssize_t count = PyList_Size(queue->frames);
    if (count != 1 && (count == 0 || queue->size > BATCH))
        return 0;
    while (count-- > 0)
        if (!PyBytes_CheckExact(PyList_GetItem(queue->frames, count)))
            return 0; /* of a subclass, which may have a finaliser */
    return 1;
}

static int
same_items(PyObject *list, PyObject *other)
{
    Py_ssize_t count = PyList_Size(list);
    if (other == NULL || PyList_Size(other) != count)
        return 0;
    while (count-- > 0)
        if (PyList_GetItem(list, count) != PyList_GetItem(other, count))
            return 0;
    return 1;
}

/* Return a new reference to the bytes of all frames of a queue. In a broadcast they are
   those of the queue before, which are joined already. */
static PyObject *
joined(PyObject *frames, PyObject *before, PyObject *before_joined)
{
    Py_ssize_t count = PyList_Size(frames), size = 0;
    PyObject *whole = NULL;
    if (count == 1)
        whole = PyList_GetItem(frames, 0);
    else if (same_items(frames, before))
        whole = before_joined;
    if (whole != NULL) {
        Py_INCREF(whole);
        return whole;
    }
    for (Py_ssize_t index = 0; index < count; index++) {
        Py_ssize_t more = PyBytes_Size(PyList_GetItem(frames, index));
        if (more > PY_SSIZE_T_MAX - size)
            return PyErr_NoMemory();
        size += more;
    }
    whole = PyBytes_FromStringAndSize(NULL, size);
    if (whole == NULL)
        return NULL;
    char *end = PyBytes_AsString(whole);
    for (Py_ssize_t index = 0; index < count; index++) {
        PyObject *frame = PyList_GetItem(frames, index);
        memcpy(end, PyBytes_AsString(frame), (size_t)PyBytes_Size(frame));
        end += PyBytes_Size(frame);
    }
    return whole;
}

/* A queue that is sent to together with others, and what. */
typedef struct {
    Queue *queue;
    PyObject *whole; /* its first frames, so many: */
    Py_ssize_t count;
    const char *data;
    size_t size;
    int fd;
    ssize_t sent;
} Sending;

/* Note how much of `whole` is on its way. Return 0, or -1 with an error set. */
static int
account(const Sending *one)
{
    Queue *queue = one->queue;
    PyObject *rest = NULL;
    if (one->sent <= 0)
        return 0;
    if ((size_t)one->sent < one->size) {
        PyObject *view = PyMemoryView_FromObject(one->whole);
        if (view == NULL)
            return -1;
        rest = PySequence_GetSlice(view, one->sent, (Py_ssize_t)one->size);
        Py_DECREF(view);
        if (rest == NULL)
            return -1;
    }
    if (PyList_SetSlice(queue->frames, 0, one->count, NULL) < 0) {
        Py_XDECREF(rest);
        return -1;
    }
    queue->size -= one->sent;
    if (rest != NULL)
        Py_XSETREF(queue->batch, rest);
    return 0;
}

/* No code in Python may run in here but while the interpreter is let go of, when other
   threads may touch no queue of this one: a finaliser may send or close. Lists that grow
   and bytes that are made or freed run none; what else is allocated may start the
   garbage collector, which is therefore stopped. */
static PyObject *
flush_ready(PyObject *module, PyObject *queues)
{
    if (!PyList_Check(queues)) {
        PyErr_SetString(PyExc_TypeError, "a list of queues is needed");
        return NULL;
    }
    PyObject *others = PyList_New(0);
    int failed = others == NULL, collected = PyGC_Disable();
    Py_ssize_t done = 0;
    while (!failed && done < PyList_Size(queues)) {
        Sending all[AT_ONCE], *one;
        int number = 0;
        for (; !failed && number < AT_ONCE && done < PyList_Size(queues); done++) {
            Queue *queue = (Queue *)PyList_GetItem(queues, done);
            if (!PyObject_TypeCheck((PyObject *)queue, queue_type)) {
                PyErr_SetString(PyExc_TypeError, "this is not a queue");
                failed = 1;
                break;
            }
            if (!is_ready(queue)) {
                failed = PyList_Append(others, (PyObject *)queue) < 0;
                continue;
            }
            one = &all[number];
            one->whole = number ? joined(queue->frames, one[-1].queue->frames, one[-1].whole)
                                : joined(queue->frames, NULL, NULL);
            if (one->whole == NULL) {
                failed = 1;
                break;
            }
            Py_INCREF(queue);
            one->queue = queue;
            one->count = PyList_Size(queue->frames);
            one->data = PyBytes_AsString(one->whole);
            one->size = (size_t)PyBytes_Size(one->whole);
            one->fd = queue->fd;
            queue->flushing = 0; /* listed again, it is not sent again */
            number++;
        }
        Py_BEGIN_ALLOW_THREADS
        for (one = all; one < all + number; one++)
            one->sent = send(one->fd, one->data, one->size, MSG_DONTWAIT | MSG_NOSIGNAL);
        Py_END_ALLOW_THREADS
        for (one = all; one < all + number; one++) {
            failed |= account(one) < 0;
            /* Full, or an error that Python's own send will meet again. */
            if (one->queue->size) {
                one->queue->flushing = 1;
                failed |= PyList_Append(others, (PyObject *)one->queue) < 0;
            }
        }
        for (one = all; one < all + number; one++) {
            Py_DECREF(one->whole);
            Py_DECREF(one->queue); /* `queues` has it, unless another thread took it out */
        }
    }
    if (collected)
        PyGC_Enable();
    if (failed)
        Py_CLEAR(others);
    return others;
}

/* Return the bytes of memory that a queue holds; -1 with an error set. As in queue.py. */
static Py_ssize_t
held_by(Queue *queue)
{
    double size = 0, of_all = 0, of_us = 0;
    PyObject *batch = queue->batch, *whole = NULL;
    if (queue->frames == NULL || batch == NULL)
        return 0;
    Py_ssize_t count = PyList_Size(queue->frames), waiting = queue->size;
    for (Py_ssize_t index = 0; index < count; index += count / SAMPLE + 1) {
        PyObject *frame = PyList_GetItem(queue->frames, index);
        if (PyBytes_Check(frame)) {
            double bytes = (double)(PyBytes_Size(frame) + FRAME_COST - PLACE);
            of_all += bytes;
            of_us += bytes / (double)Py_REFCNT(frame);
        }
    }
    if (PyBytes_Check(batch)) {
        Py_INCREF(batch);
        whole = batch;
    } else if ((whole = PyObject_GetAttrString(batch, "obj")) == NULL)
        return -1;
    if (PyBytes_Check(whole) && PyBytes_Size(whole)) {
        waiting -= PyObject_Length(batch);
        size = (double)(PyBytes_Size(whole) + FRAME_COST - PLACE);
        size /= (double)(Py_REFCNT(whole) - 1);
    }
    Py_DECREF(whole);
    if (of_all)
        size += (double)(waiting + count * (FRAME_COST - PLACE)) * (of_us / of_all);
    return (Py_ssize_t)size + count * PLACE;
}

static PyObject *
held(PyObject *module, PyObject *queues)
{
    if (!need(PyList_Check(queues), "held() takes a list"))
        return NULL;
    PyObject *all = PyList_New(0);
    for (Py_ssize_t index = 0; all != NULL && index < PyList_Size(queues); index++) {
        PyObject *queue = PyList_GetItem(queues, index), *size = NULL;
        Py_ssize_t bytes = -1;
        if (PyObject_TypeCheck(queue, queue_type))
            bytes = held_by((Queue *)queue);
        else
            PyErr_SetString(PyExc_TypeError, "this is not a queue");
        if (bytes >= 0)
            size = PyLong_FromSsize_t(bytes);
        if (size == NULL || PyList_Append(all, size) < 0)
            Py_CLEAR(all);
        Py_XDECREF(size);
    }
    return all;
}

/* Where bytes land before it is known how many there are. Nobody else can use it meanwhile:
   the call does not wait, and so does not let go of the interpreter. */
static char landing[READ_SIZE];

static PyObject *
receive(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    if (!need(count == 2 && PyLong_Check(args[0]) && PyLong_Check(args[1]),
              "receive() takes two numbers"))
        return NULL;
    long fd = PyLong_AsLong(args[0]), most = PyLong_AsLong(args[1]);
    if (PyErr_Occurred())
        return NULL;
    if (most < 0 || fd != (int)fd) {
        errno = most < 0 ? EINVAL : EBADF; /* as os.read() says */
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    if (most > (long)sizeof landing)
        most = sizeof landing;
    ssize_t size = recv((int)fd, landing, (size_t)most, MSG_DONTWAIT);
    if (size < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    return PyBytes_FromStringAndSize(landing, size);
}

static PyMethodDef functions[] = {
    {"add_to_all", (PyCFunction)(void (*)(void))add_to_all, METH_FASTCALL,
     "Queue a frame in each of a list of queues; return those without room."},
    {"clock", read_clock, METH_NOARGS, "Return the seconds that `took` counts from."},
    {"held", held, METH_O, "Return the bytes of memory that each of a list of queues holds."},
    {"receive", (PyCFunction)(void (*)(void))receive, METH_FASTCALL,
     "Return what a socket has, at most 64 KiB."},
    {"flush_ready", flush_ready, METH_O,
     "Send what waits in each queue, where one send will do; return the others."},
    {NULL}};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT, "_speedups", "The C twin of `queue` and `counts`.", -1,
    functions};

PyMODINIT_FUNC
PyInit__speedups(void)
{
    PyObject *module = PyModule_Create(&module_def);
    if (module == NULL)
        return NULL;
    counts_type = (PyTypeObject *)PyType_FromSpec(&counts_spec);
    allowance_type = (PyTypeObject *)PyType_FromSpec(&allowance_spec);
    queue_type = (PyTypeObject *)PyType_FromSpec(&queue_spec);
    if (counts_type == NULL || allowance_type == NULL || queue_type == NULL ||
        PyModule_AddObject(module, "Counts", (PyObject *)counts_type) < 0 ||
        PyModule_AddObject(module, "Allowance", (PyObject *)allowance_type) < 0 ||
        PyModule_AddObject(module, "Queue", (PyObject *)queue_type) < 0) {
        Py_DECREF(module);
        return NULL;
    }
    Py_INCREF(counts_type); /* AddObject took the first reference */
    Py_INCREF(allowance_type);
    Py_INCREF(queue_type);
    return module;
}

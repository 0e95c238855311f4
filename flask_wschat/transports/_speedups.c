/* Puts a broadcast into many queues in one call, and sends it from them in another; reads
   from a socket without a buffer for each read.

   `Queue` holds what `queue.Queue`, its Python twin, does, as plain C fields, so that a
   thousand of them can be looked at without a call for each. All that is not the usual
   case (a large backlog, a full queue or socket, an error) is left to Python. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <pythread.h>
#include <structmember.h>
#include <sys/socket.h>
#include <sys/types.h>

#ifndef Py_XSETREF /* not in the stable ABI */
#define Py_XSETREF(place, value)          \
    do {                                  \
        PyObject *old = (place);          \
        (place) = (value);                \
        Py_XDECREF(old);                  \
    } while (0)
#endif

#define AT_ONCE 256 /* sends between two looks at Python's objects */
#define BATCH 65536 /* as in outbox.py */
#define READ_SIZE 65536

typedef struct {
    PyObject_HEAD
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
    Py_ssize_t limit;
    static char *names[] = {"limit", NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "n", names, &limit))
        return -1;
    PyObject *frames = PyList_New(0);
    PyObject *batch = PyBytes_FromStringAndSize(NULL, 0);
    if (frames == NULL || batch == NULL) {
        Py_XDECREF(frames);
        Py_XDECREF(batch);
        return -1;
    }
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
    {"frames", T_OBJECT_EX, offsetof(Queue, frames), 0,
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

/* As PyArg_ParseTuple does, which takes as long as all the rest of these calls. */
static int
need(int fine, const char *what)
{
    if (!fine)
        PyErr_SetString(PyExc_TypeError, what);
    return fine;
}

static PyObject *
queue_add(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    if (!need(count == 2 && PyBytes_Check(args[0]) && PyList_Check(args[1]),
              "add() takes bytes and a list"))
        return NULL;
    int added = add((Queue *)self, args[0], PyBytes_Size(args[0]), args[1]);
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
    Py_ssize_t length = PyBytes_Size(frame);
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
        queue->batch == NULL || !PyBytes_Check(queue->batch) ||
        PyBytes_Size(queue->batch) != 0)
        return 0;
    Py_ssize_t count = PyList_Size(queue->frames);
    return count == 1 || (count > 1 && queue->size <= BATCH);
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
    PyObject *whole;
    if (PyList_Size(frames) == 1) {
        whole = PyList_GetItem(frames, 0);
        Py_INCREF(whole);
    }
    else if (same_items(frames, before)) {
        whole = before_joined;
        Py_INCREF(whole);
    }
    else {
        PyObject *nothing = PyBytes_FromStringAndSize(NULL, 0);
        if (nothing == NULL)
            return NULL;
        whole = PyObject_CallMethod(nothing, "join", "O", frames);
        Py_DECREF(nothing);
    }
    if (whole != NULL && !PyBytes_Check(whole)) {
        PyErr_SetString(PyExc_TypeError, "frames are bytes");
        Py_CLEAR(whole);
    }
    return whole;
}

/* Note that `sent` bytes of `whole`, all that waits in the queue, are on their way. */
static int
account(Queue *queue, PyObject *whole, ssize_t sent)
{
    PyObject *rest = NULL;
    if (sent < queue->size) {
        PyObject *view = PyMemoryView_FromObject(whole);
        if (view == NULL)
            return -1;
        rest = PySequence_GetSlice(view, sent, queue->size);
        Py_DECREF(view);
        if (rest == NULL)
            return -1;
    }
    if (PyList_SetSlice(queue->frames, 0, PyList_Size(queue->frames), NULL) < 0) {
        Py_XDECREF(rest);
        return -1;
    }
    queue->size -= sent;
    if (rest != NULL)
        Py_XSETREF(queue->batch, rest);
    return 0;
}

static PyObject *
flush_ready(PyObject *module, PyObject *queues)
{
    if (!PyList_Check(queues)) {
        PyErr_SetString(PyExc_TypeError, "a list of queues is needed");
        return NULL;
    }
    PyObject *others = PyList_New(0);
    if (others == NULL)
        return NULL;
    Py_ssize_t count = PyList_Size(queues), done = 0;
    int failed = 0;
    while (done < count && !failed) {
        Queue *ready[AT_ONCE];
        PyObject *wholes[AT_ONCE];
        ssize_t sent[AT_ONCE];
        int number = 0;
        for (; done < count && number < AT_ONCE && !failed; done++) {
            PyObject *item = PyList_GetItem(queues, done);
            if (!PyObject_TypeCheck(item, queue_type)) {
                PyErr_SetString(PyExc_TypeError, "this is not a queue");
                failed = 1;
            }
            else if (!is_ready((Queue *)item))
                failed = PyList_Append(others, item) < 0;
            else {
                Queue *queue = (Queue *)item;
                PyObject *before = number ? ready[number - 1]->frames : NULL;
                PyObject *known = number ? wholes[number - 1] : NULL;
                PyObject *whole = joined(queue->frames, before, known);
                if (whole == NULL)
                    failed = 1;
                else {
                    queue->flushing = 0; /* listed again, it is not sent again */
                    ready[number] = queue; /* alive through `queues` */
                    wholes[number++] = whole;
                }
            }
        }
        Py_BEGIN_ALLOW_THREADS
        for (int index = 0; index < number; index++)
            sent[index] = send(ready[index]->fd, PyBytes_AsString(wholes[index]),
                               (size_t)ready[index]->size,
                               MSG_DONTWAIT | MSG_NOSIGNAL);
        Py_END_ALLOW_THREADS
        for (int index = 0; index < number; index++) {
            Queue *queue = ready[index];
            if (sent[index] >= 0 && account(queue, wholes[index], sent[index]) < 0)
                failed = 1;
            /* Full, or an error that Python's own send will meet again. */
            if (queue->size) {
                queue->flushing = 1;
                failed |= PyList_Append(others, (PyObject *)queue) < 0;
            }
            Py_DECREF(wholes[index]);
        }
    }
    if (failed)
        Py_CLEAR(others);
    return others;
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
    {"receive", (PyCFunction)(void (*)(void))receive, METH_FASTCALL,
     "Return what a socket has, at most 64 KiB."},
    {"flush_ready", flush_ready, METH_O,
     "Send what waits in each queue, where one send will do; return the others."},
    {NULL}};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT, "_speedups", "The C twin of `queue`.", -1,
    functions};

PyMODINIT_FUNC
PyInit__speedups(void)
{
    PyObject *module = PyModule_Create(&module_def);
    if (module == NULL)
        return NULL;
    queue_type = (PyTypeObject *)PyType_FromSpec(&queue_spec);
    if (queue_type == NULL ||
        PyModule_AddObject(module, "Queue", (PyObject *)queue_type) < 0) {
        Py_DECREF(module);
        return NULL;
    }
    Py_INCREF(queue_type); /* AddObject took the first reference */
    return module;
}

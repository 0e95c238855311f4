/* Sends what a broadcast left in many queues in one call.

   `Queue` holds what `outbox.Queue`, its Python twin, does, as plain C fields, so that
   `flush_ready` can look at a thousand of them without a call for each. All that is not
   the usual case (a large backlog, a full socket, an error) is left to Python. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
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

typedef struct {
    PyObject_HEAD
    PyObject *frames; /* list of bytes */
    PyObject *batch;  /* bytes or memoryview, partly sent; empty if none */
    Py_ssize_t size;
    Py_ssize_t limit;
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

static PyType_Slot queue_slots[] = {{Py_tp_init, queue_init},
                                    {Py_tp_new, PyType_GenericNew},
                                    {Py_tp_traverse, queue_traverse},
                                    {Py_tp_clear, queue_clear},
                                    {Py_tp_dealloc, queue_dealloc},
                                    {Py_tp_members, queue_members},
                                    {0, NULL}};

static PyType_Spec queue_spec = {
    "flask_wschat.transports._speedups.Queue", sizeof(Queue), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, queue_slots};

static PyTypeObject *queue_type;

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

static PyMethodDef functions[] = {
    {"flush_ready", flush_ready, METH_O,
     "Send what waits in each queue, where one send will do; return the others."},
    {NULL}};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT, "_speedups", "The C twin of `outbox`'s queue.", -1,
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

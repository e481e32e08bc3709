package abi

import "slices"

const noteMPI = "arrives with MPI worlds"

var mpi = Func{Module: Env, Mission: "MPI", Note: noteMPI}

var roomMPI = Room{
	Name: "mpi",
	Doc: "MPI, for unmodified C programs: what Faasm has of it and what programs such as LAMMPS, NAS and OSU use. Results are " +
		"MPI_SUCCESS (0) or an MPI error class; counts are in elements and displacements in units, as the standard says. Handles are 32 bits wide.",
	Funcs: slices.Concat(mpiWorld, mpiComm, mpiPoint, mpiCollective, mpiTypes, mpiWindows),
}

// mpiWorld: life of the program.
var mpiWorld = each(
	mpi,
	[2]string{"int MPI_Init(int *argc, char ***argv)", "Joins this rank to its world; rank 0 of a call that is not yet in one makes it. Both pointers may be NULL."},
	[2]string{"int MPI_Init_thread(int *argc, char ***argv, int required, int *provided)", "As MPI_Init, storing the level of thread support that is given."},
	[2]string{"int MPI_Initialized(int *flag)", "Stores whether MPI_Init was called."},
	[2]string{"int MPI_Finalize(void)", "Leaves the world after all that this rank began has completed."},
	[2]string{"int MPI_Finalized(int *flag)", "Stores whether MPI_Finalize was called."},
	[2]string{"int MPI_Query_thread(int *provided)", "Stores the level of thread support."},
	[2]string{"int MPI_Is_thread_main(int *flag)", "Stores whether this is the thread that called MPI_Init."},
	[2]string{"int MPI_Abort(MPI_Comm comm, int code)", "Ends every rank of the world with code."},
	[2]string{"int MPI_Get_version(int *version, int *subversion)", "Stores the version of the standard."},
	[2]string{"int MPI_Get_library_version(char *version, int *len)", "Stores the name and version of the implementation."},
	[2]string{"int MPI_Get_processor_name(char *name, int *len)", "Stores the name of the executor that this rank is on."},
	[2]string{"double MPI_Wtime(void)", "Returns the seconds since some moment that stays the same during the call."},
	[2]string{"double MPI_Wtick(void)", "Returns the resolution of MPI_Wtime in seconds."},
	[2]string{"int MPI_Error_string(int code, char *text, int *len)", "Stores what an error code means."},
	[2]string{"int MPI_Error_class(int code, int *class_)", "Stores the class of an error code."},
	[2]string{"int MPI_Alloc_mem(MPI_Aint size, MPI_Info info, void *base)", "Stores at base the address of size bytes of memory."},
	[2]string{"int MPI_Free_mem(void *base)", "Frees memory from MPI_Alloc_mem."},
	[2]string{"int MPI_Get_address(const void *location, MPI_Aint *address)", "Stores the address of location."},
	[2]string{"int MPI_Info_create(MPI_Info *info)", "Makes an empty set of hints."},
	[2]string{"int MPI_Info_set(MPI_Info info, const char *key, const char *value)", "Sets a hint; unknown hints are kept and ignored."},
	[2]string{"int MPI_Info_free(MPI_Info *info)", "Frees a set of hints."},
)

// mpiComm: communicators and groups.
var mpiComm = each(
	mpi,
	[2]string{"int MPI_Comm_rank(MPI_Comm comm, int *rank)", "Stores this rank's number in comm, from 0."},
	[2]string{"int MPI_Comm_size(MPI_Comm comm, int *size)", "Stores how many ranks comm has."},
	[2]string{"int MPI_Comm_dup(MPI_Comm comm, MPI_Comm *newcomm)", "Makes a communicator of the same ranks whose messages are apart."},
	[2]string{"int MPI_Comm_split(MPI_Comm comm, int color, int key, MPI_Comm *newcomm)", "Makes a communicator for each color, its ranks ordered by key."},
	[2]string{"int MPI_Comm_split_type(MPI_Comm comm, int type, int key, MPI_Info info, MPI_Comm *newcomm)", "Makes a communicator of the ranks that share a resource: with MPI_COMM_TYPE_SHARED, an executor."},
	[2]string{"int MPI_Comm_create(MPI_Comm comm, MPI_Group group, MPI_Comm *newcomm)", "Makes a communicator of a group; all ranks of comm take part."},
	[2]string{"int MPI_Comm_create_group(MPI_Comm comm, MPI_Group group, int tag, MPI_Comm *newcomm)", "Makes a communicator of a group; only its ranks take part."},
	[2]string{"int MPI_Comm_compare(MPI_Comm a, MPI_Comm b, int *result)", "Stores whether two communicators are identical, congruent, similar or unequal."},
	[2]string{"int MPI_Comm_group(MPI_Comm comm, MPI_Group *group)", "Stores the group of comm's ranks."},
	[2]string{"int MPI_Comm_free(MPI_Comm *comm)", "Frees a communicator once its messages are through."},
	[2]string{"int MPI_Comm_set_errhandler(MPI_Comm comm, MPI_Errhandler handler)", "Chooses whether an error ends the world or is returned."},
	[2]string{"int MPI_Comm_get_attr(MPI_Comm comm, int key, void *value, int *flag)", "Stores the address of an attribute, such as MPI_TAG_UB, and whether it is set."},
	[2]string{"int MPI_Comm_set_name(MPI_Comm comm, const char *name)", "Names a communicator for messages to people."},
	[2]string{"int MPI_Comm_get_name(MPI_Comm comm, char *name, int *len)", "Stores a communicator's name."},
	[2]string{"MPI_Fint MPI_Comm_c2f(MPI_Comm comm)", "Returns a communicator's number for Fortran."},
	[2]string{"MPI_Comm MPI_Comm_f2c(MPI_Fint comm)", "Returns the communicator of a Fortran number."},
	[2]string{"int MPI_Group_incl(MPI_Group group, int n, const int *ranks, MPI_Group *newgroup)", "Makes a group of n of a group's ranks, in that order."},
	[2]string{"int MPI_Group_free(MPI_Group *group)", "Frees a group."},
	[2]string{"int MPI_Group_rank(MPI_Group group, int *rank)", "Stores this rank's number in a group, or MPI_UNDEFINED."},
	[2]string{"int MPI_Group_size(MPI_Group group, int *size)", "Stores how many ranks a group has."},
	[2]string{"int MPI_Group_translate_ranks(MPI_Group a, int n, const int *ranks, MPI_Group b, int *result)", "Stores the numbers in b of n ranks of a."},
	[2]string{"int MPI_Cart_create(MPI_Comm comm, int ndims, const int *dims, const int *periods, int reorder, MPI_Comm *newcomm)", "Makes a communicator whose ranks form a grid."},
	[2]string{"int MPI_Cart_get(MPI_Comm comm, int maxdims, int *dims, int *periods, int *coords)", "Stores a grid's sizes, which of them wrap, and where this rank is."},
	[2]string{"int MPI_Cart_rank(MPI_Comm comm, const int *coords, int *rank)", "Stores the rank at a place of a grid."},
	[2]string{"int MPI_Cart_coords(MPI_Comm comm, int rank, int maxdims, int *coords)", "Stores where a rank is in a grid."},
	[2]string{"int MPI_Cart_shift(MPI_Comm comm, int direction, int displacement, int *source, int *dest)", "Stores the neighbours of this rank along one dimension of a grid."},
	[2]string{"int MPI_Cart_sub(MPI_Comm comm, const int *remain, MPI_Comm *newcomm)", "Makes a communicator for each slice of a grid."},
	[2]string{"int MPI_Dims_create(int nnodes, int ndims, int *dims)", "Chooses sizes of a grid as even as they can be; those that are not 0 stay."},
)

// mpiPoint: point to point.
var mpiPoint = each(
	mpi,
	[2]string{"int MPI_Send(const void *buf, int count, MPI_Datatype type, int dest, int tag, MPI_Comm comm)", "Sends count elements to dest and returns when buf may be used again."},
	[2]string{"int MPI_Ssend(const void *buf, int count, MPI_Datatype type, int dest, int tag, MPI_Comm comm)", "As MPI_Send, returning only when the receiver has begun."},
	[2]string{"int MPI_Rsend(const void *buf, int count, MPI_Datatype type, int dest, int tag, MPI_Comm comm)", "As MPI_Send to a receiver that already waits."},
	[2]string{"int MPI_Bsend(const void *buf, int count, MPI_Datatype type, int dest, int tag, MPI_Comm comm)", "As MPI_Send through the attached buffer, never waiting for the receiver."},
	[2]string{"int MPI_Buffer_attach(void *buf, int size)", "Gives MPI_Bsend size bytes to work with."},
	[2]string{"int MPI_Buffer_detach(void *buf_addr, int *size)", "Takes the buffer back when its messages are through."},
	[2]string{"int MPI_Recv(void *buf, int count, MPI_Datatype type, int source, int tag, MPI_Comm comm, MPI_Status *status)", "Receives at most count elements from source, or any; MPI_ERR_TRUNCATE if the message is longer."},
	[2]string{"int MPI_Sendrecv(const void *sendbuf, int sendcount, MPI_Datatype sendtype, int dest, int sendtag, void *recvbuf, int recvcount, MPI_Datatype recvtype, int source, int recvtag, MPI_Comm comm, MPI_Status *status)", "Sends and receives at once."},
	[2]string{"int MPI_Sendrecv_replace(void *buf, int count, MPI_Datatype type, int dest, int sendtag, int source, int recvtag, MPI_Comm comm, MPI_Status *status)", "Sends and receives at once, from and to the same buffer."},
	[2]string{"int MPI_Isend(const void *buf, int count, MPI_Datatype type, int dest, int tag, MPI_Comm comm, MPI_Request *request)", "Begins an MPI_Send."},
	[2]string{"int MPI_Issend(const void *buf, int count, MPI_Datatype type, int dest, int tag, MPI_Comm comm, MPI_Request *request)", "Begins an MPI_Ssend."},
	[2]string{"int MPI_Irsend(const void *buf, int count, MPI_Datatype type, int dest, int tag, MPI_Comm comm, MPI_Request *request)", "Begins an MPI_Rsend."},
	[2]string{"int MPI_Irecv(void *buf, int count, MPI_Datatype type, int source, int tag, MPI_Comm comm, MPI_Request *request)", "Begins an MPI_Recv."},
	[2]string{"int MPI_Wait(MPI_Request *request, MPI_Status *status)", "Waits for what was begun to complete."},
	[2]string{"int MPI_Waitall(int count, MPI_Request *requests, MPI_Status *statuses)", "Waits for all of count requests to complete."},
	[2]string{"int MPI_Waitany(int count, MPI_Request *requests, int *index, MPI_Status *status)", "Waits for one of count requests to complete and stores which."},
	[2]string{"int MPI_Waitsome(int count, MPI_Request *requests, int *outcount, int *indices, MPI_Status *statuses)", "Waits for at least one of count requests to complete and stores which have."},
	[2]string{"int MPI_Test(MPI_Request *request, int *flag, MPI_Status *status)", "Stores whether what was begun has completed."},
	[2]string{"int MPI_Testall(int count, MPI_Request *requests, int *flag, MPI_Status *statuses)", "Stores whether all of count requests have completed."},
	[2]string{"int MPI_Testany(int count, MPI_Request *requests, int *index, int *flag, MPI_Status *status)", "Stores whether and which one of count requests has completed."},
	[2]string{"int MPI_Testsome(int count, MPI_Request *requests, int *outcount, int *indices, MPI_Status *statuses)", "Stores which of count requests have completed."},
	[2]string{"int MPI_Probe(int source, int tag, MPI_Comm comm, MPI_Status *status)", "Waits for a message without receiving it."},
	[2]string{"int MPI_Iprobe(int source, int tag, MPI_Comm comm, int *flag, MPI_Status *status)", "Stores whether a message waits to be received."},
	[2]string{"int MPI_Get_count(const MPI_Status *status, MPI_Datatype type, int *count)", "Stores how many elements were received, or MPI_UNDEFINED."},
	[2]string{"int MPI_Cancel(MPI_Request *request)", "Asks that what was begun be given up."},
	[2]string{"int MPI_Test_cancelled(const MPI_Status *status, int *flag)", "Stores whether it was given up."},
	[2]string{"int MPI_Request_free(MPI_Request *request)", "Frees a request; what was begun goes on."},
	[2]string{"int MPI_Send_init(const void *buf, int count, MPI_Datatype type, int dest, int tag, MPI_Comm comm, MPI_Request *request)", "Prepares an MPI_Send to be started many times."},
	[2]string{"int MPI_Recv_init(void *buf, int count, MPI_Datatype type, int source, int tag, MPI_Comm comm, MPI_Request *request)", "Prepares an MPI_Recv to be started many times."},
	[2]string{"int MPI_Start(MPI_Request *request)", "Begins a prepared request."},
	[2]string{"int MPI_Startall(int count, MPI_Request *requests)", "Begins count prepared requests."},
)

// mpiCollective: collectives.
var mpiCollective = each(
	mpi,
	[2]string{"int MPI_Barrier(MPI_Comm comm)", "Waits until every rank of comm waits."},
	[2]string{"int MPI_Bcast(void *buf, int count, MPI_Datatype type, int root, MPI_Comm comm)", "Copies root's buffer to every rank."},
	[2]string{"int MPI_Scatter(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, int recvcount, MPI_Datatype recvtype, int root, MPI_Comm comm)", "Gives each rank its part of root's buffer."},
	[2]string{"int MPI_Scatterv(const void *sendbuf, const int *sendcounts, const int *displs, MPI_Datatype sendtype, void *recvbuf, int recvcount, MPI_Datatype recvtype, int root, MPI_Comm comm)", "As MPI_Scatter, with parts of different sizes."},
	[2]string{"int MPI_Gather(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, int recvcount, MPI_Datatype recvtype, int root, MPI_Comm comm)", "Collects each rank's part in root's buffer."},
	[2]string{"int MPI_Gatherv(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, const int *recvcounts, const int *displs, MPI_Datatype recvtype, int root, MPI_Comm comm)", "As MPI_Gather, with parts of different sizes."},
	[2]string{"int MPI_Allgather(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, int recvcount, MPI_Datatype recvtype, MPI_Comm comm)", "Collects each rank's part at every rank."},
	[2]string{"int MPI_Allgatherv(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, const int *recvcounts, const int *displs, MPI_Datatype recvtype, MPI_Comm comm)", "As MPI_Allgather, with parts of different sizes."},
	[2]string{"int MPI_Alltoall(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, int recvcount, MPI_Datatype recvtype, MPI_Comm comm)", "Sends a part from each rank to each other."},
	[2]string{"int MPI_Alltoallv(const void *sendbuf, const int *sendcounts, const int *sdispls, MPI_Datatype sendtype, void *recvbuf, const int *recvcounts, const int *rdispls, MPI_Datatype recvtype, MPI_Comm comm)", "As MPI_Alltoall, with parts of different sizes."},
	[2]string{"int MPI_Alltoallw(const void *sendbuf, const int *sendcounts, const int *sdispls, const MPI_Datatype *sendtypes, void *recvbuf, const int *recvcounts, const int *rdispls, const MPI_Datatype *recvtypes, MPI_Comm comm)", "As MPI_Alltoallv, with parts of different types."},
	[2]string{"int MPI_Reduce(const void *sendbuf, void *recvbuf, int count, MPI_Datatype type, MPI_Op op, int root, MPI_Comm comm)", "Combines the ranks' elements by op at root."},
	[2]string{"int MPI_Allreduce(const void *sendbuf, void *recvbuf, int count, MPI_Datatype type, MPI_Op op, MPI_Comm comm)", "Combines the ranks' elements by op at every rank."},
	[2]string{"int MPI_Reduce_scatter(const void *sendbuf, void *recvbuf, const int *recvcounts, MPI_Datatype type, MPI_Op op, MPI_Comm comm)", "Combines the ranks' elements by op and gives each rank its part."},
	[2]string{"int MPI_Reduce_scatter_block(const void *sendbuf, void *recvbuf, int recvcount, MPI_Datatype type, MPI_Op op, MPI_Comm comm)", "As MPI_Reduce_scatter, with parts of one size."},
	[2]string{"int MPI_Scan(const void *sendbuf, void *recvbuf, int count, MPI_Datatype type, MPI_Op op, MPI_Comm comm)", "Combines the elements of the ranks up to and with this one by op."},
	[2]string{"int MPI_Exscan(const void *sendbuf, void *recvbuf, int count, MPI_Datatype type, MPI_Op op, MPI_Comm comm)", "Combines the elements of the ranks before this one by op."},
	[2]string{"int MPI_Ibarrier(MPI_Comm comm, MPI_Request *request)", "Begins an MPI_Barrier."},
	[2]string{"int MPI_Ibcast(void *buf, int count, MPI_Datatype type, int root, MPI_Comm comm, MPI_Request *request)", "Begins an MPI_Bcast."},
	[2]string{"int MPI_Igather(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, int recvcount, MPI_Datatype recvtype, int root, MPI_Comm comm, MPI_Request *request)", "Begins an MPI_Gather."},
	[2]string{"int MPI_Ialltoall(const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, int recvcount, MPI_Datatype recvtype, MPI_Comm comm, MPI_Request *request)", "Begins an MPI_Alltoall."},
	[2]string{"int MPI_Ireduce(const void *sendbuf, void *recvbuf, int count, MPI_Datatype type, MPI_Op op, int root, MPI_Comm comm, MPI_Request *request)", "Begins an MPI_Reduce."},
	[2]string{"int MPI_Iallreduce(const void *sendbuf, void *recvbuf, int count, MPI_Datatype type, MPI_Op op, MPI_Comm comm, MPI_Request *request)", "Begins an MPI_Allreduce."},
	[2]string{"int MPI_Op_create(MPI_User_function fn, int commute, MPI_Op *op)", "Makes an operation of a function of the guest."},
	[2]string{"int MPI_Op_free(MPI_Op *op)", "Frees an operation."},
)

// mpiTypes: datatypes.
var mpiTypes = each(
	mpi,
	[2]string{"int MPI_Type_size(MPI_Datatype type, int *size)", "Stores how many bytes of data a type has."},
	[2]string{"int MPI_Type_get_extent(MPI_Datatype type, MPI_Aint *lb, MPI_Aint *extent)", "Stores a type's lower bound and extent in bytes."},
	[2]string{"int MPI_Type_contiguous(int count, MPI_Datatype old, MPI_Datatype *type)", "Makes a type of count elements, one after the other."},
	[2]string{"int MPI_Type_vector(int count, int blocklength, int stride, MPI_Datatype old, MPI_Datatype *type)", "Makes a type of count blocks, stride elements apart."},
	[2]string{"int MPI_Type_create_hvector(int count, int blocklength, MPI_Aint stride, MPI_Datatype old, MPI_Datatype *type)", "As MPI_Type_vector, with the stride in bytes."},
	[2]string{"int MPI_Type_indexed(int count, const int *blocklengths, const int *displs, MPI_Datatype old, MPI_Datatype *type)", "Makes a type of count blocks of different sizes and places."},
	[2]string{"int MPI_Type_create_struct(int count, const int *blocklengths, const MPI_Aint *displs, const MPI_Datatype *types, MPI_Datatype *type)", "Makes a type of count blocks of different types, their places in bytes."},
	[2]string{"int MPI_Type_create_subarray(int ndims, const int *sizes, const int *subsizes, const int *starts, int order, MPI_Datatype old, MPI_Datatype *type)", "Makes a type of a part of an array with several dimensions."},
	[2]string{"int MPI_Type_create_resized(MPI_Datatype old, MPI_Aint lb, MPI_Aint extent, MPI_Datatype *type)", "Makes a type with another lower bound and extent."},
	[2]string{"int MPI_Type_commit(MPI_Datatype *type)", "Makes a type ready for messages."},
	[2]string{"int MPI_Type_free(MPI_Datatype *type)", "Frees a type once messages of it are through."},
	[2]string{"int MPI_Pack(const void *in, int count, MPI_Datatype type, void *out, int size, int *position, MPI_Comm comm)", "Packs elements into a buffer from position on and moves position."},
	[2]string{"int MPI_Unpack(const void *in, int size, int *position, void *out, int count, MPI_Datatype type, MPI_Comm comm)", "Unpacks elements from a buffer from position on and moves position."},
	[2]string{"int MPI_Pack_size(int count, MPI_Datatype type, MPI_Comm comm, int *size)", "Stores how many bytes MPI_Pack needs at most."},
)

// mpiWindows: one-sided communication.
var mpiWindows = each(
	mpi,
	[2]string{"int MPI_Win_create(void *base, MPI_Aint size, int unit, MPI_Info info, MPI_Comm comm, MPI_Win *win)", "Opens size bytes of memory to the other ranks."},
	[2]string{"int MPI_Win_allocate(MPI_Aint size, int unit, MPI_Info info, MPI_Comm comm, void *base, MPI_Win *win)", "As MPI_Win_create over memory that it allocates and stores at base."},
	[2]string{"int MPI_Win_allocate_shared(MPI_Aint size, int unit, MPI_Info info, MPI_Comm comm, void *base, MPI_Win *win)", "As MPI_Win_allocate over memory that the ranks of one executor share."},
	[2]string{"int MPI_Win_shared_query(MPI_Win win, int rank, MPI_Aint *size, int *unit, void *base)", "Stores where a rank's part of a shared window is in this memory."},
	[2]string{"int MPI_Win_get_attr(MPI_Win win, int key, void *value, int *flag)", "Stores the address of an attribute of a window and whether it is set."},
	[2]string{"int MPI_Win_fence(int hints, MPI_Win win)", "Separates epochs of access: what was begun is complete at all ranks."},
	[2]string{"int MPI_Win_lock(int type, int rank, int hints, MPI_Win win)", "Begins an epoch of access to one rank, shared or alone."},
	[2]string{"int MPI_Win_unlock(int rank, MPI_Win win)", "Ends such an epoch; what was begun is complete."},
	[2]string{"int MPI_Win_flush(int rank, MPI_Win win)", "Completes what was begun towards a rank."},
	[2]string{"int MPI_Win_free(MPI_Win *win)", "Closes a window."},
	[2]string{"int MPI_Put(const void *origin, int origin_count, MPI_Datatype origin_type, int rank, MPI_Aint displ, int count, MPI_Datatype type, MPI_Win win)", "Writes to another rank's window."},
	[2]string{"int MPI_Get(void *origin, int origin_count, MPI_Datatype origin_type, int rank, MPI_Aint displ, int count, MPI_Datatype type, MPI_Win win)", "Reads from another rank's window."},
	[2]string{"int MPI_Accumulate(const void *origin, int origin_count, MPI_Datatype origin_type, int rank, MPI_Aint displ, int count, MPI_Datatype type, MPI_Op op, MPI_Win win)", "Combines with another rank's window by op, element by element atomic."},
)

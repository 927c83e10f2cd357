//! What is counted by its own name: requests by method and route, handshakes of sockets, and what is timed beside them.

macro_rules! operations {
    ($($(#[$doc:meta])* $operation:ident = $method:literal $name:literal,)+) => {
        /// One kind of request, as the reports name it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Operation {
            $($(#[$doc])* $operation,)+
        }

        impl Operation {
            pub const ALL: &[Self] = &[$(Self::$operation),+];

            /// The first column of the reports.
            pub fn method(self) -> &'static str {
                match self {
                    $(Self::$operation => $method,)+
                }
            }

            /// The second: the route's template, never a raw path.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$operation => $name,)+
                }
            }
        }
    };
}

operations! {
    ListProducts = "GET" "/products/",
    GetProduct = "GET" "/products/{id}",
    CreateProduct = "POST" "/products/",
    PutProduct = "PUT" "/api/products/{id}",
    GetInventory = "GET" "/inventory/{product}",
    LowStock = "GET" "/inventory/low-stock",
    GetLevel = "GET" "/api/warehouses/{warehouse}/products/{product}",
    QueryLevels = "POST" "/api/stock/query",
    GetStock = "GET" "/stock",
    GetMovement = "GET" "/api/movements/{id}",
    GetSummary = "GET" "/summary",
    GetHealth = "GET" "/health",
    CreateOrder = "POST" "/orders/",
    GetOrder = "GET" "/orders/{id}",
    RecentOrders = "GET" "/orders/recent",
    PayOrder = "POST" "/orders/{id}/pay",
    ShipOrder = "POST" "/orders/{id}/ship",
    CancelOrder = "POST" "/orders/{id}/cancel",
    ReserveInventory = "POST" "/inventory/{product}/reserve",
    Reserve = "POST" "/api/reservations",
    ConfirmReservation = "POST" "/api/reservations/{id}/confirm",
    ReleaseReservation = "POST" "/api/reservations/{id}/release",
    ExtendReservation = "POST" "/api/reservations/{id}/extend",
    Adjust = "POST" "/api/adjustments",
    /// The handshake; frames are counted elsewhere.
    OpenSocket = "WS" "/ws",
    /// From when a marked message was due to the frame that tells of it.
    Freshness = "KAFKA" "message to frame",
}

impl Operation {
    pub fn place(self) -> usize {
        self as usize
    }

    /// Whether it asks over HTTP and changes nothing.
    pub fn is_read(self) -> bool {
        self.method() == "GET" || self == Self::QueryLevels
    }

    /// Whether it is a request over HTTP, which the sums are made of.
    pub fn is_request(self) -> bool {
        !matches!(self, Self::OpenSocket | Self::Freshness)
    }
}
